// One query and the keys before it: what the attention of training and of decoding have in common.
// Head dimensions are VECTORS * 16. Keys and values of one head are rows of a fixed stride.
#pragma once

#include "vectors.h"

namespace megasbp::kernels {

// Head dimensions that have kernels; others are left to torch.
#define MEGASBP_HEAD_DIMS(use) use(1) use(2) use(4) use(6) use(8)

template <typename T>
struct Head {
  const T *rows;
  int64_t stride;

  const T *operator[](int64_t row) const { return rows + row * stride; }
};

template <int VECTORS, typename T>
MEGASBP_INLINE void load_row(const T *from, Floats *row) {
  for (int v = 0; v < VECTORS; ++v) row[v] = load(from + v * kLanes);
}

template <int VECTORS, typename T>
MEGASBP_INLINE Floats products(const Floats *query, const T *key) {
  Floats found = query[0] * load(key);
  for (int v = 1; v < VECTORS; ++v) found += query[v] * load(key + v * kLanes);
  return found;
}

// Adds neighbouring numbers: lanes [a0+a1, a2+a3, ..., b0+b1, ...].
MEGASBP_INLINE Floats pair_sums(Floats a, Floats b) {
  const Ints even{0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, even + 1);
}

// Lane i (modulo KEYS): the product of a query with the i-th of KEYS keys.
template <int VECTORS, int KEYS>
struct Tree {
  template <typename T>
  MEGASBP_INLINE Floats sums(const Floats *query, const T *key, int64_t stride) {
    const Floats low = Tree<VECTORS, KEYS / 2>::sums(query, key, stride);
    return pair_sums(low, Tree<VECTORS, KEYS / 2>::sums(query, key + KEYS / 2 * stride, stride));
  }
};
template <int VECTORS>
struct Tree<VECTORS, 1> {
  template <typename T>
  MEGASBP_INLINE Floats sums(const Floats *query, const T *key, int64_t) {
    return products<VECTORS>(query, key);
  }
};

// The products of a query with the first `count` keys. found: [count + 16], what follows the products is -infinity.
// Returns the largest.
template <int VECTORS, typename T>
MEGASBP_INLINE float all_products(const Floats *query, const Head<T> &keys, int64_t count, float *found) {
  Floats highest = all(-__builtin_inff());
  if (count < kLanes) {
    for (int64_t i = 0; i < count; ++i) found[i] = sum(products<VECTORS>(query, keys[i]));
    store(found + count, highest);
    return largest(load(found));
  }
  for (int64_t first = 0; first < count; first += kLanes) {
    // The last sixteen once more rather than what lies behind them.
    const int64_t here = first + kLanes <= count ? first : count - kLanes;
    const Floats sixteen = Tree<VECTORS, kLanes>::sums(query, keys[here], keys.stride);
    store(found + here, sixteen);
    highest = larger(highest, sixteen);
  }
  store(found + count, all(-__builtin_inff()));
  return largest(highest);
}

// Softmax weights before their division: relative to the largest product, with their sum.
struct Softmax {
  float largest, sum;
};
// weights: [count + 16], zeros from `count` to the next multiple of sixteen.
template <int VECTORS, typename T>
MEGASBP_INLINE Softmax softmax_weights(const Floats *query, const Head<T> &keys, int64_t count, float *weights) {
  const float shift = all_products<VECTORS>(query, keys, count, weights);
  Floats total{};
  for (int64_t first = 0; first < count; first += kLanes) {
    const Floats power = exponential(load(weights + first) - shift);
    store(weights + first, power);
    total += power;
  }
  return {shift, sum(total)};
}

// mixed = sum over rows of weights[row] * values[row].
template <int VECTORS, typename T>
MEGASBP_INLINE void mix(const float *weights, const Head<T> &values, int64_t count, Floats *mixed) {
  // Two sums in turn, so that a sum need not wait for itself.
  Floats other[VECTORS] = {};
  for (int v = 0; v < VECTORS; ++v) mixed[v] = Floats{};
  int64_t row = 0;
  for (; row + 1 < count; row += 2) {
    for (int v = 0; v < VECTORS; ++v) {
      mixed[v] += weights[row] * load(values[row] + v * kLanes);
      other[v] += weights[row + 1] * load(values[row + 1] + v * kLanes);
    }
  }
  if (row < count) {
    for (int v = 0; v < VECTORS; ++v) mixed[v] += weights[row] * load(values[row] + v * kLanes);
  }
  for (int v = 0; v < VECTORS; ++v) mixed[v] += other[v];
}

}  // namespace megasbp::kernels
