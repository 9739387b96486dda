// Shingles: every run of `width` consecutive tokens of a document, as one 64-bit hash.
//
// The hash is frozen (golden vectors in tests/overlap): saved n-gram indexes and cluster labels depend on it.
//   value(t)   = mix64(t + kTokenKey)                         a bijection, so single tokens never collide
//   P(t1..tw)  = value(t1) B^(w-1) + ... + value(tw)  mod 2^64  rolls in O(1) per token
//   hash       = mix64(P + w kLengthKey)                       uniform, as the sorted index and MinHash need
// Two different runs collide with a chance of about 2^-59 or less; nothing below looks at the tokens again.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace megasbp {

constexpr std::uint64_t kTokenKey = 0x9E3779B97F4A7C15ULL;
constexpr std::uint64_t kLengthKey = 0xA24BAED4963EE407ULL;
constexpr std::uint64_t kBase = 0xD1342543DE82EF95ULL;  // odd, and 5 modulo 8: its powers stay far apart

// The finalizer of SplitMix64 (Steele, Lea, Flood 2014, variant 13 of Stafford): a bijection on 64 bits.
inline std::uint64_t mix64(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

inline std::uint64_t token_value(std::uint32_t token) { return mix64(token + kTokenKey); }

// Calls visit(hash) for each of the max(count - width + 1, 0) shingles, in order. width >= 1.
template <class Visit>
void for_each_shingle(const std::uint32_t *tokens, std::size_t count, std::size_t width, Visit visit) {
  if (count < width) return;
  std::uint64_t leading = 1;  // B^(w-1)
  std::uint64_t polynomial = 0;
  for (std::size_t i = 0; i < width; ++i) {
    polynomial = polynomial * kBase + token_value(tokens[i]);
    if (i > 0) leading *= kBase;
  }
  const std::uint64_t length = width * kLengthKey;
  visit(mix64(polynomial + length));
  for (std::size_t i = width; i < count; ++i) {
    polynomial = (polynomial - token_value(tokens[i - width]) * leading) * kBase + token_value(tokens[i]);
    visit(mix64(polynomial + length));
  }
}

// Appends the sorted distinct shingles of one document. A document shorter than the width is one shingle of its own
// length, so that equal short documents are duplicates and others share nothing; an empty one has none.
inline void append_shingle_set(const std::uint32_t *tokens, std::size_t count, std::size_t width,
                               std::vector<std::uint64_t> &out) {
  if (count == 0) return;
  const auto start = static_cast<std::ptrdiff_t>(out.size());
  for_each_shingle(tokens, count, std::min(count, width), [&](std::uint64_t hash) { out.push_back(hash); });
  std::sort(out.begin() + start, out.end());
  out.erase(std::unique(out.begin() + start, out.end()), out.end());
}

// A sorted set of distinct hashes that someone else owns.
struct SetView {
  const std::uint64_t *begin;
  const std::uint64_t *end;
  std::size_t size() const { return static_cast<std::size_t>(end - begin); }
};

// |A and B| / |A or B|; 0 when either is empty.
inline double jaccard_of_sets(SetView a, SetView b) {
  if (a.size() == 0 || b.size() == 0) return 0.0;
  std::size_t shared = 0;
  for (const std::uint64_t *i = a.begin, *j = b.begin; i != a.end && j != b.end;) {
    const std::uint64_t x = *i, y = *j;
    shared += x == y;
    i += x <= y;
    j += y <= x;
  }
  return static_cast<double>(shared) / static_cast<double>(a.size() + b.size() - shared);
}

template <class T>
using Array = pybind11::array_t<T, pybind11::array::c_style>;

// Several documents laid end to end: document i is tokens[offsets[i], offsets[i + 1]).
struct Documents {
  const std::uint32_t *tokens;
  const std::int64_t *offsets;
  std::size_t count;

  Documents(const Array<std::uint32_t> &token_array, const Array<std::int64_t> &offset_array)
      : tokens(token_array.data()), offsets(offset_array.data()), count(0) {
    if (token_array.ndim() != 1 || offset_array.ndim() != 1 || offset_array.size() < 1)
      throw std::invalid_argument("tokens and offsets must be one-dimensional, offsets not empty");
    count = static_cast<std::size_t>(offset_array.size()) - 1;
    bool ordered = offsets[0] == 0 && offsets[count] == token_array.size();
    for (std::size_t i = 0; i < count && ordered; ++i) ordered = offsets[i] <= offsets[i + 1];
    if (!ordered) throw std::invalid_argument("offsets must rise from 0 to the number of tokens");
  }
  const std::uint32_t *begin(std::size_t document) const { return tokens + offsets[document]; }
  std::size_t length(std::size_t document) const {
    return static_cast<std::size_t>(offsets[document + 1] - offsets[document]);
  }
};

inline std::size_t checked_width(std::int64_t width) {
  if (width < 1) throw std::invalid_argument("width must be at least 1, not " + std::to_string(width));
  return static_cast<std::size_t>(width);
}

// Hands a vector to numpy without copying it.
template <class T>
Array<T> to_numpy(std::vector<T> &&values) {
  auto *owner = new std::vector<T>(std::move(values));
  pybind11::capsule release(owner, [](void *pointer) { delete static_cast<std::vector<T> *>(pointer); });
  return Array<T>(static_cast<pybind11::ssize_t>(owner->size()), owner->data(), release);
}

}  // namespace megasbp

void register_duplicates(pybind11::module_ &module);
void register_signatures(pybind11::module_ &module);
void register_band_groups(pybind11::module_ &module);
void register_ngram_index(pybind11::module_ &module);
