// Similarities of pairs of vectors with the same bits on every machine and at any number of threads.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "arrays.h"
#include "exact_product.h"
#include "float_rows.h"
#include "parallel_for.h"

namespace py = pybind11;
using megasbp::IndexArray;

namespace {

constexpr int64_t kPairsAtOnce = 1024;
constexpr int64_t kPairsAhead = 3;  // Far enough for the memory, near enough for the first cache.

void check_rows(const IndexArray &rows, int64_t count, const char *name) {
  for (py::ssize_t i = 0; i < rows.size(); ++i) {
    if (rows.data()[i] < 0 || rows.data()[i] >= count)
      throw std::out_of_range(std::string(name) + " " + std::to_string(rows.data()[i]) + " is outside [0, " +
                              std::to_string(count) + ")");
  }
}

py::array_t<double> similarities(const py::array &query_vectors, const py::array &corpus_vectors,
                                const IndexArray &query_rows, const IndexArray &corpus_rows, int64_t threads) {
  const megasbp::FloatRows queries(query_vectors, "queries"), corpus(corpus_vectors, "corpus");
  if (queries.width() != corpus.width()) throw std::invalid_argument("queries and corpus must be of one width");
  if (query_rows.ndim() != 1 || corpus_rows.ndim() != 1 || query_rows.size() != corpus_rows.size())
    throw std::invalid_argument("query_rows and corpus_rows must be one-dimensional and of equal length");
  check_rows(query_rows, queries.count(), "query row");
  check_rows(corpus_rows, corpus.count(), "corpus row");
  const int64_t width = queries.width(), count = query_rows.size();
  py::array_t<double> result(count);
  double *out = result.mutable_data();
  const int64_t *i = query_rows.data(), *j = corpus_rows.data();
  py::gil_scoped_release unlocked;
  megasbp::parallel_for((count + kPairsAtOnce - 1) / kPairsAtOnce, threads, [&](int64_t part) {
    megasbp::ExactProduct product(width, corpus);
    const int64_t first = part * kPairsAtOnce;
    const int64_t last = std::min(count, first + kPairsAtOnce);
    for (int64_t pair = first; pair < last; ++pair) {
      if (pair + kPairsAhead < last) product.prefetch(j[pair + kPairsAhead]);
      // Pairs of one query mostly follow each other.
      if (pair == first || i[pair] != i[pair - 1]) product.take(queries, i[pair]);
      out[pair] = product.with(j[pair]);
    }
  });
  return result;
}

}  // namespace

void register_similarity(py::module_ &module) {
  module.def("similarities", &similarities, py::arg("queries"), py::arg("corpus"),
             py::arg("query_rows"), py::arg("corpus_rows"), py::arg("threads"),
             "float64 [c]: queries[query_rows[i]] . corpus[corpus_rows[i]], summed in double, in multiples of 2^-20.");
}
