#include "near_rows.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "exact_product.h"
#include "parallel_for.h"
#include "reached.h"
#include "wide_vectors.h"

namespace megasbp {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
static_assert(kRowsFilled % kBoundsAtOnce == 0);
constexpr float kLowest = std::numeric_limits<float>::lowest();  // Above -infinity, the bound of what is left out.
// Similarities are rounded to the grid, perhaps up to a limit.
constexpr float kGridStep = static_cast<float>(1 / kGrid);

// What the product of a query with each row is at least, of 64 groups of rows the largest; count is at least 64.
MEGASBP_WIDE_VECTORS
void largest_products(const float *bounds, int64_t count, float length, float error, const float *row_error,
                      const float *row_reach, float *largest) {
  std::fill(largest, largest + kBoundsAtOnce, -kInfinity);
  for (int64_t first = 0; first + kBoundsAtOnce <= count; first += kBoundsAtOnce) {
    for (int64_t i = 0; i < kBoundsAtOnce; ++i) {
      const float product = bounds[first + i] - 2 * (length * row_error[first + i] + error * row_reach[first + i]);
      largest[i] = product > largest[i] ? product : largest[i];
    }
  }
}

// At most the k-th largest product of the query, and near it: the k-th largest of 64 groups', where there are many rows.
float kth_product(const float *bounds, const Int8Rows &queries, size_t query, const Int8Rows &rows, int64_t k) {
  const float length = queries.length[query], error = queries.error[query];
  thread_local std::vector<float> largest;
  if (rows.count >= 2 * kBoundsAtOnce && 2 * k <= kBoundsAtOnce) {
    largest.resize(static_cast<size_t>(kBoundsAtOnce));
    largest_products(bounds, rows.count, length, error, rows.error.data(), rows.reach.data(), largest.data());
  } else {
    largest.resize(static_cast<size_t>(rows.count));
    for (size_t i = 0; i < largest.size(); ++i)
      largest[i] = bounds[i] - 2 * (length * rows.error[i] + error * rows.reach[i]);
  }
  std::nth_element(largest.begin(), largest.begin() + (k - 1), largest.end(), std::greater<float>());
  return largest[static_cast<size_t>(k - 1)];
}

// A row among the best of a query, if it is one.
void insert(double similarity, int64_t row, const BestRows &found, int64_t query) {
  float *similarities = found.similarity + query * found.best;
  int64_t *rows = found.row + query * found.best;
  // Exact: a multiple of 2^-20 of at most about 1.
  const auto value = static_cast<float>(similarity);
  int64_t place = found.best;
  while (place > 0 && (value > similarities[place - 1] ||
                       (value == similarities[place - 1] && (row < rows[place - 1] || rows[place - 1] < 0)))) {
    --place;
    if (place + 1 < found.best) {
      similarities[place + 1] = similarities[place];
      rows[place + 1] = rows[place];
    }
  }
  if (place < found.best) {
    similarities[place] = value;
    rows[place] = row;
  }
}

// Calls use(query, its bounds, the rounded queries, its place there) for all queries, a part to a thread.
template <typename Use>
void for_each_query(const FloatRows &queries, const Int8Rows &rows, int64_t threads, const Use &use) {
  parallel_for((queries.count() + kQueriesAtOnce - 1) / kQueriesAtOnce, threads, [&](int64_t part) {
    thread_local std::vector<float> bounds;
    thread_local Int8Rows rounded;
    bounds.resize(static_cast<size_t>(kQueriesAtOnce * rows.padded_count));
    const int64_t first = part * kQueriesAtOnce, last = std::min(queries.count(), first + kQueriesAtOnce);
    rounded.round(queries, first, last, false, 1);
    upper_bounds(rounded, rows, bounds.data());
    use(part, first, last, rounded, bounds.data());
  });
}

}  // namespace

NearRows::NearRows(const FloatRows &vectors, int64_t threads) : vectors_(vectors) {
  rounded_.round(vectors, 0, vectors.count(), true, threads);
}

void NearRows::improve(const FloatRows &queries, const int64_t *own_row, int64_t first_row, const BestRows &found,
                       int64_t threads) const {
  const std::vector<float> no_limit(static_cast<size_t>(rounded_.padded_count), kInfinity);
  const auto use = [&](int64_t, int64_t first, int64_t last, const Int8Rows &rounded, float *bounds) {
    ExactProduct product(width(), vectors_);
    for (int64_t query = first; query < last; ++query) {
      float *line = bounds + (query - first) * rounded_.padded_count;
      const int64_t own = own_row[query] - first_row;
      if (own >= 0 && own < count()) line[own] = -kInfinity;
      // Padding is below any limit.
      std::fill(line + count(), line + rounded_.padded_count, -kInfinity);
      const float *worst = found.similarity + (query + 1) * found.best - 1;
      float limit = std::max(*worst, kLowest);
      if (count() > found.best)
        limit = std::max(limit, kth_product(line, rounded, static_cast<size_t>(query - first), rounded_, found.best));
      const float length = rounded.length[static_cast<size_t>(query - first)];
      product.take(queries, query);
      for (int64_t start = 0; start < count(); start += kBoundsAtOnce) {
        for (uint64_t bits = reached(line + start, limit - kGridStep, no_limit.data() + start); bits != 0; bits &= bits - 1) {
          const int64_t row = start + __builtin_ctzll(bits);
          if (line[row] < limit - kGridStep || product.below(row, limit, length * rounded_.length[static_cast<size_t>(row)])) continue;
          insert(product.with(row), first_row + row, found, query);
          limit = std::max(limit, *worst);
        }
      }
    }
  };
  for_each_query(queries, rounded_, threads, use);
}

std::vector<NearRows::Pairs> NearRows::pairs(const FloatRows &queries, const float *query_limit, const float *row_limit,
                                             int64_t threads) const {
  // Of the bounds; that of the padding is never reached.
  std::vector<float> row_bound(static_cast<size_t>(rounded_.padded_count), kInfinity);
  for (int64_t i = 0; i < count(); ++i)
    row_bound[static_cast<size_t>(i)] = std::max(row_limit[i] - kGridStep, kLowest);
  std::vector<Pairs> found(static_cast<size_t>((queries.count() + kQueriesAtOnce - 1) / kQueriesAtOnce));
  const auto use = [&](int64_t part, int64_t first, int64_t last, const Int8Rows &rounded, float *bounds) {
    ExactProduct product(width(), vectors_);
    Pairs &pairs = found[static_cast<size_t>(part)];
    for (int64_t query = first; query < last; ++query) {
      float *line = bounds + (query - first) * rounded_.padded_count;
      std::fill(line + count(), line + rounded_.padded_count, -kInfinity);
      const float limit = std::max(query_limit[query] - kGridStep, kLowest);
      const float length = rounded.length[static_cast<size_t>(query - first)];
      product.take(queries, query);
      for (int64_t start = 0; start < count(); start += kBoundsAtOnce) {
        for (uint64_t bits = reached(line + start, limit, row_bound.data() + start); bits != 0; bits &= bits - 1) {
          const int64_t row = start + __builtin_ctzll(bits);
          const float lower = std::min(query_limit[query], row_limit[row]);
          if (product.below(row, lower, length * rounded_.length[static_cast<size_t>(row)])) continue;
          const double similarity = product.with(row);
          if (similarity < lower) continue;
          pairs.query.push_back(query);
          pairs.row.push_back(row);
          pairs.similarity.push_back(similarity);
        }
      }
    }
  };
  for_each_query(queries, rounded_, threads, use);
  return found;
}

}  // namespace megasbp
