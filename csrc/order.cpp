#include "order.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include "arrays.h"

namespace py = pybind11;

namespace megasbp {
namespace {

uint64_t mix(uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
  return bits ^ (bits >> 31);
}

void require_index(int64_t index) {
  if (index < 0) throw std::invalid_argument("sample index " + std::to_string(index) + " is negative");
}

}  // namespace

uint64_t keyed_hash(uint64_t key, uint64_t value) { return mix(mix(value + 0x9e3779b97f4a7c15u) ^ key); }

uint64_t bounded(uint64_t bits, uint64_t size) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(bits) * size) >> 64);
}

Permutation::Permutation(int64_t size, uint64_t key) : size_(static_cast<uint64_t>(size)) {
  if (size < 1) throw std::invalid_argument("a permutation of " + std::to_string(size) + " elements, at least 1");
  if (size_ < kTableSize) {
    table_.resize(size_);
    for (uint64_t i = 0; i < size_; ++i) table_[i] = static_cast<int64_t>(i);
    for (uint64_t i = size_ - 1; i > 0; --i) std::swap(table_[i], table_[bounded(keyed_hash(key, i), i + 1)]);
    return;
  }
  int bits = 1;
  while ((uint64_t{1} << bits) < size_) ++bits;
  low_bits_ = bits / 2;
  low_mask_ = (uint64_t{1} << low_bits_) - 1;
  high_mask_ = (uint64_t{1} << (bits - low_bits_)) - 1;
  for (uint64_t round = 0; round < kRounds; ++round) keys_[round] = keyed_hash(key, round);
}

uint64_t Permutation::encrypt(uint64_t value) const {
  uint64_t high = value >> low_bits_;
  uint64_t low = value & low_mask_;
  // Each round changes one part by a function of the other, so it can be undone, whatever the parts' widths.
  for (int round = 0; round < kRounds; round += 2) {
    high ^= keyed_hash(keys_[round], low) & high_mask_;
    low ^= keyed_hash(keys_[round + 1], high) & low_mask_;
  }
  return (high << low_bits_) | low;
}

int64_t Permutation::operator()(int64_t index) const {
  if (!table_.empty()) return table_[static_cast<uint64_t>(index)];
  uint64_t value = encrypt(static_cast<uint64_t>(index));
  while (value >= size_) value = encrypt(value);
  return static_cast<int64_t>(value);
}

void epoch_order(const int64_t *indices, int64_t count, int64_t size, uint64_t key, int64_t *out) {
  std::map<int64_t, Permutation> epochs;
  for (int64_t i = 0; i < count; ++i) {
    require_index(indices[i]);
    const int64_t epoch = size < 1 ? 0 : indices[i] / size;
    auto found = epochs.find(epoch);
    if (found == epochs.end()) {
      const uint64_t epoch_key = keyed_hash(key, static_cast<uint64_t>(epoch));
      found = epochs.emplace(epoch, Permutation(size, epoch_key)).first;
    }
    out[i] = found->second(indices[i] - epoch * size);
  }
}

void window_starts(const int64_t *indices, int64_t count, int64_t tokens, int64_t length, uint64_t order_key,
                   uint64_t phase_key, int64_t *out) {
  if (length < 1 || tokens < length) {
    throw std::invalid_argument("windows of " + std::to_string(length) + " tokens in " + std::to_string(tokens));
  }
  const int64_t windows = tokens / length;
  epoch_order(indices, count, windows, order_key, out);
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t epoch = static_cast<uint64_t>(indices[i] / windows);
    const int64_t phase =
        static_cast<int64_t>(bounded(keyed_hash(phase_key, epoch), static_cast<uint64_t>(tokens)));
    const int64_t offset = out[i] * length;
    // Both are below tokens; written so that their sum cannot overflow.
    out[i] = offset < tokens - phase ? phase + offset : offset - (tokens - phase);
  }
}

}  // namespace megasbp

void register_order(py::module_ &module) {
  using megasbp::IndexArray;
  module.def("keyed_hash", &megasbp::keyed_hash, py::arg("key"), py::arg("value"));
  module.def(
      "permute",
      [](int64_t size, uint64_t key, const IndexArray &indices) {
        const megasbp::Permutation permutation(size, key);
        IndexArray images(indices.size());
        int64_t *out = images.mutable_data();
        for (int64_t i = 0; i < indices.size(); ++i) {
          const int64_t index = indices.data()[i];
          if (index < 0 || index >= size) {
            throw std::invalid_argument("index " + std::to_string(index) + " is not in 0.." +
                                        std::to_string(size - 1));
          }
          out[i] = permutation(index);
        }
        return images;
      },
      py::arg("size"), py::arg("key"), py::arg("indices"));
  module.def(
      "epoch_order",
      [](const IndexArray &indices, int64_t size, uint64_t key) {
        IndexArray images(indices.size());
        megasbp::epoch_order(indices.data(), indices.size(), size, key, images.mutable_data());
        return images;
      },
      py::arg("indices"), py::arg("size"), py::arg("key"));
  module.def(
      "window_starts",
      [](const IndexArray &indices, int64_t tokens, int64_t length, uint64_t order_key, uint64_t phase_key) {
        IndexArray starts(indices.size());
        megasbp::window_starts(indices.data(), indices.size(), tokens, length, order_key, phase_key,
                               starts.mutable_data());
        return starts;
      },
      py::arg("indices"), py::arg("tokens"), py::arg("length"), py::arg("order_key"), py::arg("phase_key"));
}
