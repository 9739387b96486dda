// Pairs of documents at the scale of a corpus: the greedy walk under caps, and 64-bit keys of document ids.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>

#include <pybind11/stl.h>

#include "shingles.h"

namespace py = pybind11;
using namespace megasbp;

namespace {

// Stable sort of positions by key(position), by counting 11 bits at a time from the lowest: every pass reads the keys
// twice and moves the positions once. `largest` ends it early: document numbers fill few of the 64 bits.
template <class Position, class Key>
void stable_sort_by(std::vector<Position> &order, std::vector<Position> &scratch, std::uint64_t largest, Key key) {
  constexpr int kBits = 11;
  constexpr std::uint64_t kMask = (std::uint64_t{1} << kBits) - 1;
  for (int shift = 0; shift < 64 && (largest >> shift) > 0; shift += kBits) {
    std::vector<std::size_t> starts(kMask + 2, 0);
    for (const Position position : order) ++starts[((key(position) >> shift) & kMask) + 1];
    std::partial_sum(starts.begin(), starts.end(), starts.begin());
    for (const Position position : order) scratch[starts[(key(position) >> shift) & kMask]++] = position;
    order.swap(scratch);
  }
}

// Rises when the value falls; equal for 0 and -0.
std::uint32_t falling_key(float value) {
  value += 0.0f;
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t rising = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return ~rising;
}

struct Candidates {
  const float *values;  // null: the candidates are offered by position
  const std::int64_t *seeds;
  const std::int64_t *targets;
  std::size_t count;
};

struct Capped {
  std::vector<std::int64_t> kept;
  std::int64_t seed_drops = 0;
  std::int64_t target_drops = 0;
};

std::uint64_t largest_document(const std::int64_t *documents, std::size_t count) {
  std::int64_t largest = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (documents[i] < 0) throw std::invalid_argument("document " + std::to_string(documents[i]) + " is negative");
    largest = std::max(largest, documents[i]);
  }
  return static_cast<std::uint64_t>(largest);
}

// `Position` numbers the candidates, `Count` counts up to the larger cap: small types, because at 600M documents and
// 10^9 candidates these arrays are the memory.
template <class Position, class Count>
Capped cap(const Candidates &all, std::uint64_t per_seed, std::uint64_t per_target) {
  const std::uint64_t last_seed = largest_document(all.seeds, all.count);
  const std::uint64_t last_target = largest_document(all.targets, all.count);
  std::vector<Position> by_pair(all.count), scratch(all.count);
  std::iota(by_pair.begin(), by_pair.end(), Position{0});
  stable_sort_by(by_pair, scratch, last_target, [&](Position i) { return static_cast<std::uint64_t>(all.targets[i]); });
  stable_sort_by(by_pair, scratch, last_seed, [&](Position i) { return static_cast<std::uint64_t>(all.seeds[i]); });

  std::vector<Position> offered;
  if (all.values != nullptr) {
    offered = by_pair;
    std::uint32_t largest = 0;
    for (std::size_t i = 0; i < all.count; ++i) {
      if (std::isnan(all.values[i])) throw std::invalid_argument("a similarity is not a number");
      largest = std::max(largest, falling_key(all.values[i]));
    }
    stable_sort_by(offered, scratch, largest, [&](Position i) { return falling_key(all.values[i]); });
  }
  std::vector<Position>().swap(scratch);

  Capped result;
  std::vector<Count> seeds(last_seed + 1, 0), targets(last_target + 1, 0);
  std::vector<bool> keep(all.count, false);
  std::size_t kept = 0;
  for (std::size_t turn = 0; turn < all.count; ++turn) {
    const std::size_t i = offered.empty() ? turn : static_cast<std::size_t>(offered[turn]);
    Count &of_seed = seeds[static_cast<std::size_t>(all.seeds[i])];
    Count &of_target = targets[static_cast<std::size_t>(all.targets[i])];
    if (of_seed >= per_seed) {
      ++result.seed_drops;
    } else if (of_target >= per_target) {
      ++result.target_drops;
    } else {
      ++of_seed;
      ++of_target;
      keep[i] = true;
      ++kept;
    }
  }
  std::vector<Position>().swap(offered);
  result.kept.reserve(kept);
  for (const Position i : by_pair)
    if (keep[i]) result.kept.push_back(static_cast<std::int64_t>(i));
  return result;
}

template <class Position>
Capped cap_counting(const Candidates &all, std::uint64_t per_seed, std::uint64_t per_target) {
  return std::max(per_seed, per_target) <= std::numeric_limits<std::uint8_t>::max()
             ? cap<Position, std::uint8_t>(all, per_seed, per_target)
             : cap<Position, std::uint64_t>(all, per_seed, per_target);
}

py::tuple cap_pairs(const Array<std::int64_t> &seeds, const Array<std::int64_t> &targets, std::int64_t per_seed,
                    std::int64_t per_target, const std::optional<Array<float>> &values) {
  if (seeds.ndim() != 1 || targets.ndim() != 1 || seeds.size() != targets.size() ||
      (values && (values->ndim() != 1 || values->size() != seeds.size())))
    throw std::invalid_argument("seeds, targets and values must be one-dimensional and of equal length");
  if (per_seed < 1 || per_target < 1) throw std::invalid_argument("both caps must be at least 1");
  const Candidates all{values ? values->data() : nullptr, seeds.data(), targets.data(),
                       static_cast<std::size_t>(seeds.size())};
  Capped result;
  {
    py::gil_scoped_release unlocked;
    const auto first = static_cast<std::uint64_t>(per_seed), second = static_cast<std::uint64_t>(per_target);
    result = all.count <= std::numeric_limits<std::uint32_t>::max() ? cap_counting<std::uint32_t>(all, first, second)
                                                                    : cap_counting<std::uint64_t>(all, first, second);
  }
  return py::make_tuple(to_numpy(std::move(result.kept)), result.seed_drops, result.target_drops);
}

// A string's bytes as a 64-bit key: eight bytes at a time through the finalizer of SplitMix64, then the length.
std::uint64_t string_key(const std::uint8_t *bytes, std::size_t length) {
  std::uint64_t key = 0;
  for (std::size_t start = 0; start < length; start += 8) {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < std::min<std::size_t>(8, length - start); ++i)
      word |= static_cast<std::uint64_t>(bytes[start + i]) << (8 * i);
    key = mix64(key + kTokenKey) ^ mix64(word + kLengthKey);
    key = mix64(key);
  }
  return mix64(key + length * kLengthKey);
}

Array<std::uint64_t> string_keys(const Array<std::uint8_t> &bytes, const Array<std::int64_t> &offsets) {
  if (bytes.ndim() != 1 || offsets.ndim() != 1 || offsets.size() < 1)
    throw std::invalid_argument("bytes and offsets must be one-dimensional, offsets not empty");
  const auto count = static_cast<std::size_t>(offsets.size()) - 1;
  const std::int64_t *bounds = offsets.data();
  bool ordered = bounds[0] >= 0 && bounds[count] <= bytes.size();
  for (std::size_t i = 0; i < count && ordered; ++i) ordered = bounds[i] <= bounds[i + 1];
  if (!ordered) throw std::invalid_argument("offsets must rise inside the bytes");
  Array<std::uint64_t> keys(static_cast<py::ssize_t>(count));
  std::uint64_t *out = keys.mutable_data();
  const std::uint8_t *data = bytes.data();
  py::gil_scoped_release unlocked;
  for (std::size_t i = 0; i < count; ++i)
    out[i] = string_key(data + bounds[i], static_cast<std::size_t>(bounds[i + 1] - bounds[i]));
  return keys;
}

}  // namespace

void register_pairs(py::module_ &module) {
  module.def("cap_pairs", &cap_pairs, py::arg("seeds"), py::arg("targets"), py::arg("per_seed"),
             py::arg("per_target"), py::arg("values") = py::none());
  module.def("string_keys", &string_keys, py::arg("bytes"), py::arg("offsets"));
}
