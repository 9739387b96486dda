// Shingle hashes, exact Jaccard similarity and word hashes. Hash and set rules: shingles.h.
#include "shingles.h"

#include <string_view>

namespace py = pybind11;
using namespace megasbp;

namespace {

std::size_t checked_length(const Array<std::uint32_t> &tokens) {
  if (tokens.ndim() != 1) throw std::invalid_argument("tokens must be one-dimensional");
  return static_cast<std::size_t>(tokens.size());
}

Array<std::uint64_t> shingle_hashes(const Array<std::uint32_t> &tokens, std::int64_t width_argument) {
  const std::size_t count = checked_length(tokens), width = checked_width(width_argument);
  Array<std::uint64_t> hashes(static_cast<py::ssize_t>(count < width ? 0 : count - width + 1));
  std::uint64_t *out = hashes.mutable_data();
  const std::uint32_t *data = tokens.data();
  py::gil_scoped_release unlocked;
  for_each_shingle(data, count, width, [&](std::uint64_t hash) { *out++ = hash; });
  return hashes;
}

double repeated_share(const Array<std::uint32_t> &tokens, std::int64_t width_argument) {
  const std::size_t count = checked_length(tokens), width = checked_width(width_argument);
  if (count < width) return 0.0;
  const std::uint32_t *data = tokens.data();
  py::gil_scoped_release unlocked;
  std::vector<std::uint64_t> distinct;
  distinct.reserve(count - width + 1);
  append_shingle_set(data, count, width, distinct);
  const auto total = static_cast<double>(count - width + 1);
  return (total - static_cast<double>(distinct.size())) / total;
}

// The sets of all documents, end to end.
struct Sets {
  std::vector<std::uint64_t> hashes;
  std::vector<std::size_t> bounds{0};

  Sets(const Documents &documents, std::size_t width) {
    for (std::size_t i = 0; i < documents.count; ++i) {
      append_shingle_set(documents.begin(i), documents.length(i), width, hashes);
      bounds.push_back(hashes.size());
    }
  }
  SetView operator[](std::int64_t i) const {
    return {hashes.data() + bounds[static_cast<std::size_t>(i)], hashes.data() + bounds[static_cast<std::size_t>(i) + 1]};
  }
};

void check_rows(const Array<std::int64_t> &rows, std::size_t documents) {
  for (py::ssize_t i = 0; i < rows.size(); ++i) {
    const std::int64_t row = rows.data()[i];
    if (row < 0 || static_cast<std::size_t>(row) >= documents)
      throw std::invalid_argument("row " + std::to_string(row) + " is outside [0, " + std::to_string(documents) + ")");
  }
}

Array<double> jaccard_rows(const Array<std::uint32_t> &tokens_a, const Array<std::int64_t> &offsets_a,
                           const Array<std::int64_t> &rows_a, const Array<std::uint32_t> &tokens_b,
                           const Array<std::int64_t> &offsets_b, const Array<std::int64_t> &rows_b,
                           std::int64_t width_argument) {
  const std::size_t width = checked_width(width_argument);
  const Documents documents_a(tokens_a, offsets_a), documents_b(tokens_b, offsets_b);
  if (rows_a.ndim() != 1 || rows_b.ndim() != 1 || rows_a.size() != rows_b.size())
    throw std::invalid_argument("rows_a and rows_b must be one-dimensional and of equal length");
  check_rows(rows_a, documents_a.count);
  check_rows(rows_b, documents_b.count);
  Array<double> result(rows_a.size());
  double *out = result.mutable_data();
  const std::int64_t *a = rows_a.data(), *b = rows_b.data();
  const py::ssize_t count = rows_a.size();
  py::gil_scoped_release unlocked;
  const Sets sets_a(documents_a, width), sets_b(documents_b, width);
  for (py::ssize_t i = 0; i < count; ++i) out[i] = jaccard_of_sets(sets_a[a[i]], sets_b[b[i]]);
  return result;
}

// FNV-1a of each space-separated word, mixed, upper half.
Array<std::uint32_t> hash_words(const py::bytes &text) {
  const std::string_view view(text);
  std::vector<std::uint32_t> words;
  {
    py::gil_scoped_release unlocked;
    constexpr std::uint64_t kOffset = 0xCBF29CE484222325ULL, kPrime = 0x100000001B3ULL;
    std::uint64_t state = kOffset;
    bool inside = false;
    for (const char character : view) {
      if (character == ' ') {
        if (inside) words.push_back(static_cast<std::uint32_t>(mix64(state) >> 32));
        state = kOffset;
        inside = false;
      } else {
        state = (state ^ static_cast<unsigned char>(character)) * kPrime;
        inside = true;
      }
    }
    if (inside) words.push_back(static_cast<std::uint32_t>(mix64(state) >> 32));
  }
  return to_numpy(std::move(words));
}

}  // namespace

void register_shingles(py::module_ &module) {
  module.def("shingle_hashes", &shingle_hashes, py::arg("tokens"), py::arg("width"),
             "uint64 [max(n - width + 1, 0)]: the hash of every run of `width` tokens.");
  module.def("repeated_share", &repeated_share, py::arg("tokens"), py::arg("width"),
             "Share of the shingles that occur earlier in the same document; 0 below one shingle.");
  module.def("jaccard_rows", &jaccard_rows, py::arg("tokens_a"), py::arg("offsets_a"), py::arg("rows_a"),
             py::arg("tokens_b"), py::arg("offsets_b"), py::arg("rows_b"), py::arg("width"),
             "float64 [n]: Jaccard similarity of document rows_a[i] of a with document rows_b[i] of b.");
  module.def("hash_words", &hash_words, py::arg("text"), "uint32: the hash of each space-separated word of UTF-8 text.");
  register_duplicates(module);
  register_signatures(module);
  register_band_groups(module);
  register_ngram_index(module);
}
