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

// The largest of each of 64 groups of numbers; count is a multiple of 64.
MEGASBP_WIDE_VECTORS
void largest_of_groups(const float *numbers, int64_t count, float *largest) {
  std::copy(numbers, numbers + kBoundsAtOnce, largest);
  for (int64_t first = kBoundsAtOnce; first < count; first += kBoundsAtOnce) {
    for (int64_t i = 0; i < kBoundsAtOnce; ++i)
      largest[i] = numbers[first + i] > largest[i] ? numbers[first + i] : largest[i];
  }
}

// A bound that at least k of `count` > k bounds reach, and few more: the k-th largest, of 64 groups' where there are many.
float kth_bound(const float *bounds, int64_t count, int64_t padded_count, int64_t k) {
  thread_local std::vector<float> largest;
  if (count >= 2 * kBoundsAtOnce && 2 * k <= kBoundsAtOnce) {
    largest.resize(static_cast<size_t>(kBoundsAtOnce));
    largest_of_groups(bounds, padded_count, largest.data());
  } else {
    largest.assign(bounds, bounds + count);
  }
  std::nth_element(largest.begin(), largest.begin() + (k - 1), largest.end(), std::greater<float>());
  return largest[static_cast<size_t>(k - 1)];
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

void NearRows::improve(const FloatRows &queries, const int64_t *own_row, int64_t first_row, const BestRows<float> &found,
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
      const float length = rounded.length[static_cast<size_t>(query - first)];
      product.take(queries, query);
      // First the rows of the largest bounds; the worst of the best is then near to what it will be.
      float above = kInfinity;
      for (const bool rest : {false, true}) {
        float limit = std::max(found.worst(query) - kGridStep, kLowest);
        if (!rest && limit == kLowest && count() > found.best)
          limit = std::max(limit, kth_bound(line, count(), rounded_.padded_count, found.best));
        for (int64_t start = 0; start < count(); start += kBoundsAtOnce) {
          uint64_t bits = reached(line + start, limit, no_limit.data() + start);
          if (rest) bits &= ~reached(line + start, above, no_limit.data() + start);
          for (; bits != 0; bits &= bits - 1) {
            const int64_t row = start + __builtin_ctzll(bits);
            if (line[row] < found.worst(query) - kGridStep ||
                product.below(row, found.worst(query), length * rounded_.length[static_cast<size_t>(row)]))
              continue;
            // Exact: a multiple of 2^-20 of at most about 1.
            found.insert(query, static_cast<float>(product.with(row)), first_row + row);
          }
        }
        if (found.worst(query) - kGridStep >= limit) break;
        above = limit;
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
      bool taken = false;
      for (int64_t start = 0; start < count(); start += kBoundsAtOnce) {
        for (uint64_t bits = reached(line + start, limit, row_bound.data() + start); bits != 0; bits &= bits - 1) {
          // Most queries reach nothing.
          if (!taken) product.take(queries, query);
          taken = true;
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
