// Rows found for owners: from pairs that count for one of their two or both; the best of each owner.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <stdexcept>

#include "arrays.h"
#include "best_rows.h"
#include "parallel_for.h"

namespace py = pybind11;
using megasbp::IndexArray;

namespace {

using FloatArray = py::array_t<float, py::array::c_style>;
using DoubleArray = py::array_t<double, py::array::c_style>;

// A side of the pairs: the numbers of its rows, and what a pair must reach to count for one of them.
struct Side {
  const int64_t *number;
  const float *limit;
  int64_t count;
};

Side side_of(const IndexArray &number, const FloatArray &limit) {
  if (number.ndim() != 1 || limit.ndim() != 1 || number.size() != limit.size())
    throw std::invalid_argument("a side must have one number and one limit for each row");
  return {number.data(), limit.data(), number.size()};
}

py::tuple candidates_of(const IndexArray &query, const IndexArray &row, const DoubleArray &similarity,
                        const IndexArray &query_number, const FloatArray &query_limit, const IndexArray &row_number,
                        const FloatArray &row_limit, bool both) {
  const Side queries = side_of(query_number, query_limit), rows = side_of(row_number, row_limit);
  const int64_t count = query.size();
  if (query.ndim() != 1 || row.ndim() != 1 || similarity.ndim() != 1 || row.size() != count || similarity.size() != count)
    throw std::invalid_argument("query, row and similarity must be one-dimensional and of equal length");
  const int64_t *of_query = query.data(), *of_row = row.data();
  const double *value = similarity.data();
  // Calls use(owner, number of the other, similarity) in the order of the pairs.
  const auto for_each = [&](const auto &use) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t q = of_query[i], r = of_row[i];
      if (q < 0 || q >= queries.count || r < 0 || r >= rows.count) throw std::out_of_range("a pair lies outside its sides");
      const int64_t asking = queries.number[q], found = rows.number[r];
      if (both && asking == found) continue;
      if (value[i] >= queries.limit[q]) use(asking, found, value[i]);
      if (both && value[i] >= rows.limit[r]) use(found, asking, value[i]);
    }
  };
  int64_t total = 0;
  for_each([&](int64_t, int64_t, double) { ++total; });
  IndexArray owner(total), other(total);
  FloatArray kept(total);
  int64_t *owner_out = owner.mutable_data(), *other_out = other.mutable_data();
  float *kept_out = kept.mutable_data();
  {
    py::gil_scoped_release unlocked;
    for_each([&](int64_t first, int64_t second, double similar) {
      *owner_out++ = first;
      *other_out++ = second;
      *kept_out++ = static_cast<float>(similar);
    });
  }
  return py::make_tuple(owner, other, kept);
}

py::tuple best_of_each(const IndexArray &owner, const IndexArray &row, const DoubleArray &similarity, int64_t start,
                       int64_t stop, int64_t k, int64_t threads) {
  if (owner.ndim() != 1 || row.ndim() != 1 || similarity.ndim() != 1 || owner.size() != row.size() ||
      owner.size() != similarity.size() || stop < start || k < 1)
    throw std::invalid_argument("owner, row and similarity must be one-dimensional and of equal length");
  const int64_t owners = stop - start, count = owner.size();
  DoubleArray best({owners, k});
  IndexArray found({owners, k});
  const megasbp::BestRows<double> table{best.mutable_data(), found.mutable_data(), k};
  const int64_t *of = owner.data(), *rows = row.data();
  const double *similarities = similarity.data();
  {
    py::gil_scoped_release unlocked;
    std::fill(table.similarity, table.similarity + owners * k, -std::numeric_limits<double>::infinity());
    std::fill(table.row, table.row + owners * k, -1);
    for (int64_t i = 0; i < count; ++i)
      if (of[i] < start || of[i] >= stop) throw std::out_of_range("an owner lies outside its range");
    // Each thread takes some owners and looks at all candidates: most are refused by one comparison.
    const int64_t parts = std::max<int64_t>(threads, 1), size = owners / parts + 1;
    megasbp::parallel_for(parts, threads, [&](int64_t part) {
      const int64_t first = start + part * size, last = std::min(stop, first + size);
      for (int64_t i = 0; i < count; ++i) {
        if (of[i] >= first && of[i] < last && similarities[i] >= table.worst(of[i] - start))
          table.insert(of[i] - start, similarities[i], rows[i]);
      }
    });
  }
  return py::make_tuple(best, found);
}

}  // namespace

void register_candidates(py::module_ &module) {
  module.def("candidates_of", &candidates_of, py::arg("query"), py::arg("row"), py::arg("similarity"),
             py::arg("query_number"), py::arg("query_limit"), py::arg("row_number"), py::arg("row_limit"), py::arg("both"),
             "Owner and other, int64 [c], and similarity, float32 [c]: what pairs that reach a limit say to its side, both:\n"
             "to the row's too, and a row that meets itself is left out.");
  module.def("best_of_each", &best_of_each, py::arg("owner"), py::arg("row"), py::arg("similarity"), py::arg("start"),
             py::arg("stop"), py::arg("k"), py::arg("threads"),
             "float64 and int64 [stop - start, k]: the best different rows of each owner; -inf and -1 where none.");
}
