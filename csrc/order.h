// The order of samples as a pure function of (key, epoch): no index array, entry anywhere in O(1).
#pragma once

#include <cstdint>
#include <vector>

namespace megasbp {

// Keyed 64-bit hash: two passes of the splitmix64 finaliser (Steele, Lea & Flood 2014, Stafford's variant 13).
// Frozen: every order of samples follows from it, and tests hold golden values.
uint64_t keyed_hash(uint64_t key, uint64_t value);

// An integer in [0, size) from 64 random bits by the high half of a product; its bias is below size / 2**64.
uint64_t bounded(uint64_t bits, uint64_t size);

// A bijection of [0, size).
//
// From 4,096 elements on: an alternating Feistel network of 8 rounds over the smallest power of two >= size; results
// outside [0, size) are encrypted again ("cycle walking", Black & Rogaway 2002), fewer than two passes on average.
// Below: a Fisher-Yates table, because a network over so few bits is measurably not uniform.
class Permutation {
 public:
  // Throws std::invalid_argument when size < 1.
  Permutation(int64_t size, uint64_t key);

  // Image of index, which must lie in [0, size).
  int64_t operator()(int64_t index) const;

 private:
  static constexpr int kRounds = 8;
  static constexpr uint64_t kTableSize = 4096;

  uint64_t encrypt(uint64_t value) const;

  uint64_t size_;
  std::vector<int64_t> table_;
  uint64_t keys_[kRounds];
  int low_bits_ = 0;
  uint64_t low_mask_ = 0;
  uint64_t high_mask_ = 0;
};

// Sample i lies in epoch i / size; inside it the order is the permutation keyed by keyed_hash(key, epoch).
// Writes the image of each index; all must be >= 0 (else std::invalid_argument).
void epoch_order(const int64_t *indices, int64_t count, int64_t size, uint64_t key, int64_t *out);

// First token of each sample's window over a circular stream of `tokens` tokens: N = tokens / length windows an epoch,
// window w of epoch e starts at (phase(e) + w * length) mod tokens. Throws std::invalid_argument when N < 1.
void window_starts(const int64_t *indices, int64_t count, int64_t tokens, int64_t length, uint64_t order_key,
                   uint64_t phase_key, int64_t *out);

}  // namespace megasbp
