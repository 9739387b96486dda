// NearRows in Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <stdexcept>

#include "arrays.h"
#include "near_rows.h"

namespace py = pybind11;
using megasbp::FloatRows;
using megasbp::IndexArray;
using megasbp::NearRows;

namespace {

using FloatArray = py::array_t<float, py::array::c_style>;

constexpr int64_t kWidest = 1 << 16;  // The sums of wider rows would not fit 32 bits.

std::unique_ptr<NearRows> make(const py::object &rows, int64_t threads) {
  const FloatRows vectors(rows, "vectors");
  if (vectors.width() > kWidest) throw std::invalid_argument("vectors may have 65,536 numbers at most");
  py::gil_scoped_release unlocked;
  return std::make_unique<NearRows>(vectors, threads);
}

FloatRows checked(const NearRows &rows, const py::object &asking) {
  FloatRows queries(asking, "queries");
  if (queries.count() > 0 && queries.width() != rows.width()) throw std::invalid_argument("queries and rows must be of one width");
  return queries;
}

void improve(const NearRows &rows, const py::object &asking, const IndexArray &own_row, int64_t first,
             FloatArray &similarity, IndexArray &row, int64_t threads) {
  const FloatRows queries = checked(rows, asking);
  const int64_t count = queries.count();
  if (own_row.ndim() != 1 || own_row.size() != count || similarity.ndim() != 2 || row.ndim() != 2 ||
      similarity.shape(0) != count || row.shape(0) != count || similarity.shape(1) != row.shape(1) || row.shape(1) < 1)
    throw std::invalid_argument("there must be one own row, and as many similarities as rows, for each query");
  const megasbp::BestRows<float> found{similarity.mutable_data(), row.mutable_data(), row.shape(1)};
  const int64_t *own = own_row.data();
  py::gil_scoped_release unlocked;
  rows.improve(queries, own, first, found, threads);
}

py::tuple pairs(const NearRows &rows, const py::object &asking, const FloatArray &query_limit,
                const FloatArray &row_limit, int64_t threads) {
  const FloatRows queries = checked(rows, asking);
  if (query_limit.ndim() != 1 || row_limit.ndim() != 1 || query_limit.size() != queries.count() ||
      row_limit.size() != rows.count())
    throw std::invalid_argument("there must be one limit for each query and row");
  const float *of_queries = query_limit.data(), *of_rows = row_limit.data();
  std::vector<NearRows::Pairs> found;
  {
    py::gil_scoped_release unlocked;
    found = rows.pairs(queries, of_queries, of_rows, threads);
  }
  size_t total = 0;
  for (const NearRows::Pairs &part : found) total += part.row.size();
  const auto size = static_cast<py::ssize_t>(total);
  IndexArray query(size), row(size);
  py::array_t<double> similarity(size);
  int64_t *query_out = query.mutable_data(), *row_out = row.mutable_data();
  double *similarity_out = similarity.mutable_data();
  for (const NearRows::Pairs &part : found) {
    query_out = std::copy(part.query.begin(), part.query.end(), query_out);
    row_out = std::copy(part.row.begin(), part.row.end(), row_out);
    similarity_out = std::copy(part.similarity.begin(), part.similarity.end(), similarity_out);
  }
  return py::make_tuple(query, row, similarity);
}

}  // namespace

void register_near_rows(py::module_ &module) {
  py::class_<NearRows>(module, "NearRows", "Rows that are compared with one batch of queries after the other.")
      .def(py::init(&make), py::keep_alive<1, 2>(), py::arg("vectors"), py::arg("threads"),
           "vectors: float32 or float16 [m, d], or a list of (matrix, int32 positions) whose rows they are. They must not change.")
      .def("__len__", &NearRows::count)
      .def("improve", &improve, py::arg("queries"), py::arg("own_row").noconvert(), py::arg("first"),
           py::arg("similarity").noconvert(), py::arg("row").noconvert(), py::arg("threads"),
           "Puts the rows, numbered from `first` on, among the best of each query, float32 and int64 [n, k], in place.\n"
           "own_row: int64 [n], numbered alike; left out.")
      .def("pairs", &pairs, py::arg("queries"), py::arg("query_limit").noconvert(), py::arg("row_limit").noconvert(),
           py::arg("threads"),
           "Query and row, int64 [c], and similarity, float64 [c]: pairs that reach the limit of one of the two, in order.");
}
