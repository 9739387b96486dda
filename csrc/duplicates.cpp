// Near-duplicates: MinHash bands (Broder 1997; Leskovec, Rajaraman, Ullman, chapter 3) give candidates, exact Jaccard
// similarity of the shingle sets decides, union-find joins. Every candidate pair is looked at, so the partition does
// not depend on the order of the documents.
#include "shingles.h"
#include "union_find.h"

#include <limits>
#include <utility>

namespace py = pybind11;
using namespace megasbp;

namespace {

class DuplicateFinder {
 public:
  // Hash function i of the signature is x -> multipliers[i] * x + increments[i] mod 2^64, multipliers odd. Band b is
  // the functions [b * rows, (b + 1) * rows).
  DuplicateFinder(std::int64_t width, std::int64_t rows, const Array<std::uint64_t> &multipliers,
                  const Array<std::uint64_t> &increments)
      : width_(checked_width(width)), rows_(static_cast<std::size_t>(rows)) {
    if (rows < 1 || multipliers.ndim() != 1 || increments.ndim() != 1 || multipliers.size() != increments.size() ||
        multipliers.size() == 0 || multipliers.size() % rows != 0)
      throw std::invalid_argument("multipliers and increments must hold the same positive multiple of `rows` numbers");
    multipliers_.assign(multipliers.data(), multipliers.data() + multipliers.size());
    increments_.assign(increments.data(), increments.data() + increments.size());
    for (auto &multiplier : multipliers_) multiplier |= 1;
    bands_ = multipliers_.size() / rows_;
  }

  void add(const Array<std::uint32_t> &tokens, const Array<std::int64_t> &offsets) {
    const Documents documents(tokens, offsets);
    py::gil_scoped_release unlocked;
    for (std::size_t i = 0; i < documents.count; ++i) {
      append_shingle_set(documents.begin(i), documents.length(i), width_, hashes_);
      bounds_.push_back(hashes_.size());
      append_band_keys(set_of(document_count()));
      clusters_.add();
    }
  }

  // Joins documents with equal sets and leaves one of each for the bands: a bucket of a million copies of one page
  // would otherwise hold 10^12 pairs.
  void join_equal() {
    py::gil_scoped_release unlocked;
    auto keyed = sorted_keys([this](std::size_t document) {
      std::uint64_t key = 0;
      for (const auto *hash = set_of(document).begin; hash != set_of(document).end; ++hash) key = mix64(key + *hash);
      return key;
    });
    is_copy_.assign(document_count(), false);
    for (std::size_t i = 1, first = 0; i < keyed.size(); ++i) {
      if (keyed[i].first != keyed[first].first) {
        first = i;
        continue;
      }
      const SetView a = set_of(keyed[first].second), b = set_of(keyed[i].second);
      if (a.size() == b.size() && std::equal(a.begin, a.end, b.begin)) {
        clusters_.join(number(keyed[first].second), number(keyed[i].second));
        is_copy_[keyed[i].second] = true;
      }
    }
  }

  // Joins the documents that share this band's key and whose Jaccard similarity is at least `threshold`.
  void join_band(std::int64_t band_argument, double threshold) {
    if (band_argument < 0 || static_cast<std::size_t>(band_argument) >= bands_)
      throw std::invalid_argument("band " + std::to_string(band_argument) + " is outside [0, " +
                                  std::to_string(bands_) + ")");
    py::gil_scoped_release unlocked;
    const auto band = static_cast<std::size_t>(band_argument);
    auto keyed = sorted_keys([&](std::size_t document) { return band_keys_[document * bands_ + band]; });
    for (std::size_t start = 0, end = 0; start < keyed.size(); start = end) {
      while (end < keyed.size() && keyed[end].first == keyed[start].first) ++end;
      for (std::size_t i = start; i < end; ++i)
        for (std::size_t j = i + 1; j < end; ++j) join_if_similar(keyed[i].second, keyed[j].second, threshold);
    }
  }

  // Label of a cluster: its smallest document. Called once, last.
  Array<std::int64_t> labels() { return to_numpy(clusters_.take_labels()); }

  std::size_t bands() const { return bands_; }

 private:
  static std::int64_t number(std::size_t document) { return static_cast<std::int64_t>(document); }

  std::size_t document_count() const { return static_cast<std::size_t>(clusters_.size()); }

  SetView set_of(std::size_t document) const {
    return {hashes_.data() + bounds_[document], hashes_.data() + bounds_[document + 1]};
  }

  void append_band_keys(SetView set) {
    for (std::size_t band = 0, function = 0; band < bands_; ++band) {
      std::uint64_t key = band;
      for (std::size_t row = 0; row < rows_; ++row, ++function) {
        std::uint64_t smallest = std::numeric_limits<std::uint64_t>::max();
        const std::uint64_t multiplier = multipliers_[function], increment = increments_[function];
        for (const auto *hash = set.begin; hash != set.end; ++hash)
          smallest = std::min(smallest, *hash * multiplier + increment);
        key = mix64(key + smallest);
      }
      band_keys_.push_back(key);
    }
  }

  // (key, document) of every document that is not empty and no copy, sorted.
  template <class Key>
  std::vector<std::pair<std::uint64_t, std::size_t>> sorted_keys(Key key) const {
    std::vector<std::pair<std::uint64_t, std::size_t>> keyed;
    for (std::size_t i = 0; i < document_count(); ++i)
      if (set_of(i).size() > 0 && (is_copy_.empty() || !is_copy_[i])) keyed.emplace_back(key(i), i);
    std::sort(keyed.begin(), keyed.end());
    return keyed;
  }

  void join_if_similar(std::size_t a, std::size_t b, double threshold) {
    if (clusters_.root(number(a)) == clusters_.root(number(b))) return;
    const SetView set_a = set_of(a), set_b = set_of(b);
    // The similarity is at most the ratio of the sizes.
    const auto smaller = static_cast<double>(std::min(set_a.size(), set_b.size()));
    const auto larger = static_cast<double>(std::max(set_a.size(), set_b.size()));
    if (smaller / larger < threshold) return;
    if (jaccard_of_sets(set_a, set_b) >= threshold) clusters_.join(number(a), number(b));
  }

  std::size_t width_, rows_, bands_ = 0;
  std::vector<std::uint64_t> multipliers_, increments_;
  std::vector<std::uint64_t> hashes_;      // the documents' sets, end to end
  std::vector<std::size_t> bounds_{0};     // document i's set is hashes_[bounds_[i], bounds_[i + 1])
  std::vector<std::uint64_t> band_keys_;   // [documents, bands]
  UnionFind clusters_;
  std::vector<bool> is_copy_;              // set by join_equal
};

}  // namespace

void register_duplicates(py::module_ &module) {
  py::class_<DuplicateFinder>(module, "DuplicateFinder", "Clusters of near-duplicate documents; not thread-safe.")
      .def(py::init<std::int64_t, std::int64_t, const Array<std::uint64_t> &, const Array<std::uint64_t> &>(),
           py::arg("width"), py::arg("rows"), py::arg("multipliers"), py::arg("increments"))
      .def("add", &DuplicateFinder::add, py::arg("tokens"), py::arg("offsets"))
      .def("join_equal", &DuplicateFinder::join_equal)
      .def("join_band", &DuplicateFinder::join_band, py::arg("band"), py::arg("threshold"))
      .def("labels", &DuplicateFinder::labels)
      .def_property_readonly("bands", &DuplicateFinder::bands);
}
