// Pairs of rows whose inner product may reach a limit: no such pair is missing, few others are there.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <vector>

#include "arrays.h"
#include "int8_products.h"
#include "parallel_for.h"
#include "wide_vectors.h"

namespace py = pybind11;
using megasbp::IndexArray;
using megasbp::Int8Rows;
using megasbp::kQueriesAtOnce;

namespace {

using FloatArray = py::array_t<float, py::array::c_style>;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLowest = std::numeric_limits<float>::lowest();  // Above -infinity, the bound of what is left out.
// Similarities are rounded to multiples of 2^-20, perhaps up to a limit.
constexpr float kGridStep = 1.0f / (1 << 20);
constexpr int64_t kColumnsAtOnce = 64;
constexpr int64_t kWidest = 1 << 16;  // The sums of wider rows would not fit 32 bits.

// What the product of a query with each row is at least, of 64 groups of rows the largest; count is at least 64.
MEGASBP_WIDE_VECTORS
void largest_products(const float *bounds, int64_t count, float length, float error, const float *row_error,
                      const float *row_reach, float *largest) {
  std::fill(largest, largest + kColumnsAtOnce, -kInfinity);
  for (int64_t first = 0; first + kColumnsAtOnce <= count; first += kColumnsAtOnce) {
    for (int64_t i = 0; i < kColumnsAtOnce; ++i) {
      const float product = bounds[first + i] - 2 * (length * row_error[first + i] + error * row_reach[first + i]);
      largest[i] = product > largest[i] ? product : largest[i];
    }
  }
}

// At most the k-th largest product of the query, and near it: the k-th largest of 64 groups', where there are many rows.
float kth_product(const float *bounds, const Int8Rows &queries, size_t query, const Int8Rows &rows, int64_t k) {
  const float length = queries.length[query], error = queries.error[query];
  std::vector<float> largest(static_cast<size_t>(kColumnsAtOnce));
  if (rows.count >= 2 * kColumnsAtOnce && 2 * k <= kColumnsAtOnce) {
    largest_products(bounds, rows.count, length, error, rows.error.data(), rows.reach.data(), largest.data());
  } else {
    largest.resize(static_cast<size_t>(rows.count));
    for (size_t i = 0; i < largest.size(); ++i)
      largest[i] = bounds[i] - 2 * (length * rows.error[i] + error * rows.reach[i]);
  }
  std::nth_element(largest.begin(), largest.begin() + (k - 1), largest.end(), std::greater<float>());
  return largest[static_cast<size_t>(k - 1)];
}

MEGASBP_WIDE_VECTORS
bool any_above(const float *bounds, float query_limit, const float *row_limit) {
  int any = 0;
  for (int64_t i = 0; i < kColumnsAtOnce; ++i) {
    const float limit = row_limit[i] < query_limit ? row_limit[i] : query_limit;
    any |= bounds[i] >= limit;
  }
  return any != 0;
}

struct Pairs {
  std::vector<int64_t> query, row;
};

// Few bounds pass, so whole runs of rows are tested at once.
void append_above(const float *bounds, int64_t count, float query_limit, const float *row_limit, int64_t query,
                  Pairs &found) {
  for (int64_t first = 0; first < count; first += kColumnsAtOnce) {
    const int64_t run = std::min(kColumnsAtOnce, count - first);
    if (run == kColumnsAtOnce && !any_above(bounds + first, query_limit, row_limit + first)) continue;
    for (int64_t i = first; i < first + run; ++i) {
      if (bounds[i] >= std::min(row_limit[i], query_limit)) {
        found.query.push_back(query);
        found.row.push_back(i);
      }
    }
  }
}

Int8Rows round_rows(const py::array &array, bool as_columns, int64_t threads) {
  const megasbp::FloatRows vectors(array, "vectors");
  if (vectors.width() > kWidest) throw std::invalid_argument("vectors may have 65,536 numbers at most");
  py::gil_scoped_release unlocked;
  return Int8Rows(vectors, as_columns, threads);
}

py::tuple close_pairs(const Int8Rows &queries, const Int8Rows &rows, const FloatArray &query_limit,
                      const FloatArray &row_limit, const IndexArray &own_row, int64_t best, int64_t threads) {
  if (queries.width != rows.width) throw std::invalid_argument("queries and rows must be of one width");
  if (query_limit.size() != queries.count || row_limit.size() != rows.count || own_row.size() != queries.count)
    throw std::invalid_argument("there must be one limit for each query and row, and one own row for each query");
  std::vector<float> row_limits(row_limit.data(), row_limit.data() + rows.count);
  for (float &limit : row_limits) limit = std::max(limit - kGridStep, kLowest);
  const float *query_limits = query_limit.data();
  const int64_t *own_rows = own_row.data();
  const int64_t parts = (queries.count + kQueriesAtOnce - 1) / kQueriesAtOnce;
  std::vector<Pairs> found(static_cast<size_t>(parts));
  {
    py::gil_scoped_release unlocked;
    megasbp::parallel_for(parts, threads, [&](int64_t part) {
      thread_local std::vector<float> bounds;
      bounds.resize(static_cast<size_t>(kQueriesAtOnce * rows.padded_count));
      const int64_t first = part * kQueriesAtOnce;
      megasbp::upper_bounds(queries, first, rows, bounds.data());
      for (int64_t query = first; query < std::min(queries.count, first + kQueriesAtOnce); ++query) {
        float *line = bounds.data() + (query - first) * rows.padded_count;
        if (own_rows[query] >= 0 && own_rows[query] < rows.count) line[own_rows[query]] = -kInfinity;
        float limit = std::max(query_limits[query], kLowest);
        if (best > 0 && rows.count > best)
          limit = std::max(limit, kth_product(line, queries, static_cast<size_t>(query), rows, best));
        append_above(line, rows.count, limit - kGridStep, row_limits.data(), query, found[static_cast<size_t>(part)]);
      }
    });
  }
  size_t total = 0;
  for (const Pairs &pairs : found) total += pairs.row.size();
  IndexArray query(static_cast<py::ssize_t>(total)), row(static_cast<py::ssize_t>(total));
  int64_t *query_out = query.mutable_data(), *row_out = row.mutable_data();
  for (const Pairs &pairs : found) {
    query_out = std::copy(pairs.query.begin(), pairs.query.end(), query_out);
    row_out = std::copy(pairs.row.begin(), pairs.row.end(), row_out);
  }
  return py::make_tuple(query, row);
}

}  // namespace

void register_close_pairs(py::module_ &module) {
  py::class_<Int8Rows>(module, "Int8Rows", "Rows rounded to 8 bits, and how far that has moved each.")
      .def(py::init(&round_rows), py::arg("vectors"), py::arg("as_columns"), py::arg("threads"),
           "vectors: float32 or float16 [n, d]. as_columns: they are the rows of `close_pairs`, not the queries.")
      .def("__len__", [](const Int8Rows &rows) { return rows.count; });
  module.def("close_pairs", &close_pairs, py::arg("queries"), py::arg("rows"), py::arg("query_limit").noconvert(),
             py::arg("row_limit").noconvert(), py::arg("own_row").noconvert(), py::arg("best"), py::arg("threads"),
             "Query and row, int64 [c], in rising order: pairs whose product may reach the limit of one of the two, or be\n"
             "among the query's best (0: none is asked for). own_row: a row that is left out, or -1.");
}
