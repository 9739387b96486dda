// Similarities of pairs of vectors with the same bits on every machine and at any number of threads; the best of each.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <limits>
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

struct Candidate {
  double similarity;
  int64_t row;
  bool operator<(const Candidate &other) const {
    return similarity != other.similarity ? similarity > other.similarity : row < other.row;
  }
};

// Candidates are dealt out to their owners by a counting sort; each owner's few are then sorted.
py::tuple best_of_each(const IndexArray &owner, const IndexArray &row, const py::array_t<double, py::array::c_style> &similarity,
                       int64_t start, int64_t stop, int64_t k, int64_t threads) {
  if (owner.ndim() != 1 || row.ndim() != 1 || similarity.ndim() != 1 || owner.size() != row.size() ||
      owner.size() != similarity.size() || stop < start || k < 1)
    throw std::invalid_argument("owner, row and similarity must be one-dimensional and of equal length");
  const int64_t owners = stop - start, count = owner.size();
  py::array_t<double> best({owners, k});
  IndexArray found({owners, k});
  double *best_out = best.mutable_data();
  int64_t *found_out = found.mutable_data();
  const int64_t *owner_in = owner.data(), *row_in = row.data();
  const double *similarity_in = similarity.data();
  py::gil_scoped_release unlocked;
  std::vector<int64_t> bounds(static_cast<size_t>(owners) + 2);
  for (int64_t i = 0; i < count; ++i) {
    if (owner_in[i] < start || owner_in[i] >= stop) throw std::out_of_range("an owner lies outside its range");
    ++bounds[static_cast<size_t>(owner_in[i] - start) + 2];
  }
  for (size_t i = 1; i < bounds.size(); ++i) bounds[i] += bounds[i - 1];
  std::vector<Candidate> candidates(static_cast<size_t>(count));
  // bounds[o + 1] runs from the owner's first place to the next owner's.
  for (int64_t i = 0; i < count; ++i)
    candidates[static_cast<size_t>(bounds[static_cast<size_t>(owner_in[i] - start) + 1]++)] = {similarity_in[i], row_in[i]};
  megasbp::parallel_for(owners, threads, [&](int64_t o) {
    const auto first = candidates.begin() + bounds[static_cast<size_t>(o)];
    auto last = candidates.begin() + bounds[static_cast<size_t>(o) + 1];
    std::sort(first, last);
    last = std::unique(first, last, [](const Candidate &a, const Candidate &b) { return a.row == b.row; });
    const int64_t kept = std::min<int64_t>(k, last - first);
    for (int64_t i = 0; i < k; ++i) {
      best_out[o * k + i] = i < kept ? first[i].similarity : -std::numeric_limits<double>::infinity();
      found_out[o * k + i] = i < kept ? first[i].row : -1;
    }
  });
  py::gil_scoped_acquire locked;
  return py::make_tuple(best, found);
}

}  // namespace

void register_similarity(py::module_ &module) {
  module.def("similarities", &similarities, py::arg("queries"), py::arg("corpus"),
             py::arg("query_rows"), py::arg("corpus_rows"), py::arg("threads"),
             "float64 [c]: queries[query_rows[i]] . corpus[corpus_rows[i]], summed in double, in multiples of 2^-20.");
  module.def("best_of_each", &best_of_each, py::arg("owner"), py::arg("row"), py::arg("similarity"), py::arg("start"),
             py::arg("stop"), py::arg("k"), py::arg("threads"),
             "float64 and int64 [stop - start, k]: the best different rows of each owner; -inf and -1 where none.");
}
