// Candidate pairs of one band: documents whose keys agree, thinned out by what their signatures say.
#include "shingles.h"
#include "union_find.h"

#include <pybind11/stl.h>

#include <cstring>
#include <limits>
#include <utility>

namespace py = pybind11;
using namespace megasbp;

namespace {

constexpr std::size_t kSlots = 128;
// Groups of up to this many different signatures are compared pair by pair; in a larger one (boilerplate) each
// document is compared with the smallest and with the few before it, so that work grows linearly with the group.
constexpr std::size_t kAllPairs = 32;
constexpr std::size_t kBefore = 8;

using Pair = std::pair<std::int64_t, std::int64_t>;

class BandGroups {
 public:
  // Of the documents added, keeps those whose key falls into this part of the key space. 16 bytes a kept document.
  BandGroups(std::int64_t part, std::int64_t parts, std::int64_t documents) : part_(part), parts_(parts) {
    if (parts < 1 || part < 0 || part >= parts || documents < 0)
      throw std::invalid_argument("part must be in [0, parts), documents not negative");
    // Keys are uniform but for copies, which may all lie in one part.
    keyed_.reserve(static_cast<std::size_t>(static_cast<double>(documents) / static_cast<double>(parts) * 1.02) + 1024);
  }

  void add(const Array<std::uint64_t> &keys, std::int64_t first_document) {
    if (keys.ndim() != 1) throw std::invalid_argument("keys must be one-dimensional");
    const std::uint64_t *key = keys.data();
    const py::ssize_t count = keys.size();
    py::gil_scoped_release unlocked;
    for (py::ssize_t i = 0; i < count; ++i)
      if (key[i] != std::numeric_limits<std::uint64_t>::max() && part_of(key[i]) == part_)
        keyed_.emplace_back(key[i], first_document + i);
  }

  // The candidate pairs, smaller document first, sorted: int64 [pairs, 2].
  //   shards, bounds     the signatures, uint8 [n, 128] each, and the document numbers at which they start and end
  //   copies_too         whether documents of equal signature are paired; in the other bands all but the first of
  //                      them are left out, for they agree in every band
  //   fewest, certain    slots that must agree for a pair to be worth comparing; slots from which on two documents
  //                      count as joined already, so that a cluster gives a chain of pairs and not a clique
  Array<std::int64_t> candidates(const std::vector<Array<std::uint8_t>> &shards,
                                 const std::vector<std::int64_t> &bounds, bool copies_too, std::int64_t fewest,
                                 std::int64_t certain) {
    if (bounds.size() != shards.size() + 1) throw std::invalid_argument("bounds must be one longer than shards");
    for (std::size_t i = 0; i < shards.size(); ++i)
      if (shards[i].ndim() != 2 || shards[i].shape(1) != static_cast<py::ssize_t>(kSlots) ||
          shards[i].shape(0) != bounds[i + 1] - bounds[i])
        throw std::invalid_argument("signatures must be [documents, 128]");
    std::vector<const std::uint8_t *> starts;
    for (const auto &shard : shards) starts.push_back(shard.data());
    std::vector<std::int64_t> flat;
    {
      py::gil_scoped_release unlocked;
      std::sort(keyed_.begin(), keyed_.end());
      if (!keyed_.empty() && (keyed_.front().second < 0 || bounds.empty() || largest_document() >= bounds.back()))
        throw std::invalid_argument("a document lies outside the signatures");
      Signatures signatures{std::move(starts), bounds};
      for (std::size_t start = 0, end = 0; start < keyed_.size(); start = end) {
        while (end < keyed_.size() && keyed_[end].first == keyed_[start].first) ++end;
        if (end - start < 2) continue;
        ++groups_;
        largest_ = std::max(largest_, end - start);
        compare_group(signatures, start, end, copies_too, fewest, certain);
      }
      std::sort(pairs_.begin(), pairs_.end());
      flat.reserve(2 * pairs_.size());
      for (const Pair &pair : pairs_) flat.insert(flat.end(), {pair.first, pair.second});
      pairs_ = {};
    }
    const auto count = static_cast<py::ssize_t>(flat.size() / 2);
    return to_numpy(std::move(flat)).reshape({count, py::ssize_t{2}});
  }

  std::size_t groups() const { return groups_; }
  std::size_t largest() const { return largest_; }

 private:
  struct Signatures {
    std::vector<const std::uint8_t *> starts;
    const std::vector<std::int64_t> &bounds;

    const std::uint8_t *of(std::int64_t document) const {
      const auto shard = std::upper_bound(bounds.begin(), bounds.end(), document) - bounds.begin() - 1;
      const auto i = static_cast<std::size_t>(shard);
      return starts[i] + static_cast<std::size_t>(document - bounds[i]) * kSlots;
    }
  };

  static std::int64_t agreeing(const std::uint8_t *a, const std::uint8_t *b) {
    std::int64_t count = 0;
    for (std::size_t slot = 0; slot < kSlots; ++slot) count += a[slot] == b[slot];
    return count;
  }

  static std::uint64_t hash_of(const std::uint8_t *signature) {
    std::uint64_t hash = 0;
    for (std::size_t i = 0; i < kSlots; i += sizeof(std::uint64_t)) {
      std::uint64_t word;
      std::memcpy(&word, signature + i, sizeof(word));
      hash = mix64(hash + word);
    }
    return hash;
  }

  std::int64_t part_of(std::uint64_t key) const {
    return static_cast<std::int64_t>((key >> 32) * static_cast<std::uint64_t>(parts_) >> 32);
  }

  std::int64_t largest_document() const {
    std::int64_t largest = -1;
    for (const auto &keyed : keyed_) largest = std::max(largest, keyed.second);
    return largest;
  }

  void compare_group(const Signatures &signatures, std::size_t start, std::size_t end, bool copies_too,
                     std::int64_t fewest, std::int64_t certain) {
    std::vector<std::pair<std::uint64_t, std::int64_t>> by_signature;
    for (std::size_t i = start; i < end; ++i)
      by_signature.emplace_back(hash_of(signatures.of(keyed_[i].second)), keyed_[i].second);
    std::sort(by_signature.begin(), by_signature.end());
    std::vector<std::int64_t> different;
    for (std::size_t i = 0, first = 0; i < by_signature.size(); ++i) {
      const std::int64_t document = by_signature[i].second;
      if (i == 0 || by_signature[i].first != by_signature[first].first) {
        first = i;
        different.push_back(document);
      } else if (copies_too) {
        pairs_.emplace_back(by_signature[first].second, document);
        if (i - 1 > first) pairs_.emplace_back(by_signature[i - 1].second, document);
      }
    }
    std::sort(different.begin(), different.end());
    compare_different(signatures, different, fewest, certain);
  }

  void compare_different(const Signatures &signatures, const std::vector<std::int64_t> &documents, std::int64_t fewest,
                         std::int64_t certain) {
    std::vector<const std::uint8_t *> rows;
    for (const std::int64_t document : documents) rows.push_back(signatures.of(document));
    const auto count = static_cast<std::int64_t>(documents.size());
    UnionFind joined(count);
    const auto compare = [&](std::int64_t i, std::int64_t j) {
      if (joined.root(i) == joined.root(j)) return;
      const std::int64_t same = agreeing(rows[static_cast<std::size_t>(i)], rows[static_cast<std::size_t>(j)]);
      if (same < fewest) return;
      pairs_.emplace_back(documents[static_cast<std::size_t>(i)], documents[static_cast<std::size_t>(j)]);
      if (same >= certain) joined.join(i, j);
    };
    const bool all = documents.size() <= kAllPairs;
    for (std::int64_t j = 1; j < count; ++j) {
      compare(0, j);
      const std::int64_t before = all ? 1 : std::max<std::int64_t>(1, j - static_cast<std::int64_t>(kBefore));
      for (std::int64_t i = before; i < j; ++i) compare(i, j);
    }
  }

  std::int64_t part_, parts_;
  std::vector<std::pair<std::uint64_t, std::int64_t>> keyed_;  // (key, document)
  std::vector<Pair> pairs_;
  std::size_t groups_ = 0, largest_ = 0;
};

// The pairs int64 [n, 2] as 2 n numbers, each a member.
const std::int64_t *checked_pairs(const UnionFind &clusters, const Array<std::int64_t> &pairs) {
  if (pairs.ndim() != 2 || pairs.shape(1) != 2) throw std::invalid_argument("pairs must be [n, 2]");
  for (py::ssize_t i = 0; i < pairs.size(); ++i) {
    const std::int64_t document = pairs.data()[i];
    if (document < 0 || document >= clusters.size())
      throw std::out_of_range("document " + std::to_string(document) + " of " + std::to_string(clusters.size()));
  }
  return pairs.data();
}

void join_pairs(UnionFind &clusters, const Array<std::int64_t> &pairs) {
  const std::int64_t *pair = checked_pairs(clusters, pairs);
  const py::ssize_t count = pairs.shape(0);
  py::gil_scoped_release unlocked;
  for (py::ssize_t i = 0; i < count; ++i) clusters.join(pair[2 * i], pair[2 * i + 1]);
}

Array<bool> joined_pairs(UnionFind &clusters, const Array<std::int64_t> &pairs) {
  const std::int64_t *pair = checked_pairs(clusters, pairs);
  Array<bool> result(pairs.shape(0));
  bool *out = result.mutable_data();
  for (py::ssize_t i = 0; i < pairs.shape(0); ++i)
    out[i] = clusters.root(pair[2 * i]) == clusters.root(pair[2 * i + 1]);
  return result;
}

}  // namespace

void register_band_groups(py::module_ &module) {
  py::class_<BandGroups>(module, "BandGroups", "Candidate pairs of one band; not thread-safe.")
      .def(py::init<std::int64_t, std::int64_t, std::int64_t>(), py::arg("part"), py::arg("parts"),
           py::arg("documents"))
      .def("add", &BandGroups::add, py::arg("keys"), py::arg("first_document"))
      .def("candidates", &BandGroups::candidates, py::arg("shards"), py::arg("bounds"), py::arg("copies_too"),
           py::arg("fewest"), py::arg("certain"))
      .def_property_readonly("groups", &BandGroups::groups)
      .def_property_readonly("largest", &BandGroups::largest);

  py::class_<UnionFind>(module, "UnionFind", "Disjoint sets of [0, size), 8 bytes a member; not thread-safe.")
      .def(py::init<std::int64_t>(), py::arg("size"))
      .def("join", &join_pairs, py::arg("pairs"))
      .def("joined", &joined_pairs, py::arg("pairs"), "bool [n]: whether the two of a pair are joined.")
      .def("take_labels", [](UnionFind &self) { return to_numpy(self.take_labels()); },
           "int64 [size]: each member's smallest companion; leaves the sets empty.");
}
