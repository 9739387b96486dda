// One query at a time over the cached keys of its sequence.
#include <algorithm>
#include <cmath>

#include "head_dims.h"
#include "kernels.h"

namespace megasbp::kernels {
namespace {

struct Shape {
  int64_t tokens, heads, kv_heads, head_dim, capacity;
};

template <int HEAD_DIM>
struct Query {
  static constexpr int kVectors = HEAD_DIM / kLanes;
  Floats parts[kVectors];

  template <typename T>
  Query(const T *from, float scale) {
    for (int v = 0; v < kVectors; ++v) parts[v] = load(from + v * kLanes) * scale;
  }

  template <typename T>
  MEGASBP_INLINE Floats products(const Query &query, const T *key) {
    Floats found = query.parts[0] * load(key);
    for (int v = 1; v < kVectors; ++v) found += query.parts[v] * load(key + v * kLanes);
    return found;
  }
};

// Adds neighbouring numbers: lanes [a0+a1, a2+a3, ..., b0+b1, ...].
MEGASBP_INLINE Floats pair_sums(Floats a, Floats b) {
#if defined(__AVX2__)
  const Ints even{0, 2, 4, 6, 8, 10, 12, 14};
#else
  const Ints even{0, 2, 4, 6};
#endif
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, even + 1);
}

// Lane i (modulo KEYS): the product of a query with the i-th of KEYS keys.
template <int HEAD_DIM, int KEYS>
struct Tree {
  template <typename T>
  MEGASBP_INLINE Floats sums(const Query<HEAD_DIM> &query, const T *key) {
    const Floats low = Tree<HEAD_DIM, KEYS / 2>::sums(query, key);
    return pair_sums(low, Tree<HEAD_DIM, KEYS / 2>::sums(query, key + KEYS / 2 * HEAD_DIM));
  }
};
template <int HEAD_DIM>
struct Tree<HEAD_DIM, 1> {
  template <typename T>
  MEGASBP_INLINE Floats sums(const Query<HEAD_DIM> &query, const T *key) {
    return Query<HEAD_DIM>::products(query, key);
  }
};

// The products of a query with the first `count` keys. found: [count + kLanes], what follows the products is -infinity.
// Returns the largest.
template <int HEAD_DIM, typename T>
MEGASBP_INLINE float all_products(const Query<HEAD_DIM> &query, const T *keys, int64_t count, float *found) {
  Floats highest = all(-__builtin_inff());
  if (count < kLanes) {
    for (int64_t i = 0; i < count; ++i) found[i] = sum(Query<HEAD_DIM>::products(query, keys + i * HEAD_DIM));
    store(found + count, highest);
    return largest(load(found));
  }
  for (int64_t first = 0; first < count; first += kLanes) {
    // The last keys once more rather than what lies behind them.
    const int64_t here = first + kLanes <= count ? first : count - kLanes;
    const Floats products = Tree<HEAD_DIM, kLanes>::sums(query, keys + here * HEAD_DIM);
    store(found + here, products);
    highest = larger(highest, products);
  }
  store(found + count, all(-__builtin_inff()));
  return largest(highest);
}

// mixed [HEAD_DIM] = the softmax of one query's products times the values.
template <int HEAD_DIM, typename T>
MEGASBP_INLINE void attend_one(const Query<HEAD_DIM> &query, const T *keys, const T *values, int64_t count,
                               float *weights, T *mixed) {
  const float shift = all_products(query, keys, count, weights);
  Floats total{};
  for (int64_t first = 0; first < count; first += kLanes) {
    const Floats power = exponential(load(weights + first) - shift);
    store(weights + first, power);
    total += power;
  }
  const float whole = sum(total);
  // As many numbers at a time as there are registers for; of each two sums in turn, so that one need not wait for itself.
  constexpr int kVectors = std::min<int>(HEAD_DIM / kLanes, 4);
  for (int e = 0; e < HEAD_DIM; e += kVectors * kLanes) {
    Floats even[kVectors] = {}, odd[kVectors] = {};
    int64_t i = 0;
    for (; i + 1 < count; i += 2) {
      const T *value = values + i * HEAD_DIM + e;
      for (int v = 0; v < kVectors; ++v) {
        even[v] += weights[i] * load(value + v * kLanes);
        odd[v] += weights[i + 1] * load(value + HEAD_DIM + v * kLanes);
      }
    }
    if (i < count) {
      for (int v = 0; v < kVectors; ++v) even[v] += weights[i] * load(values + i * HEAD_DIM + e + v * kLanes);
    }
    for (int v = 0; v < kVectors; ++v) store(mixed + e + v * kLanes, (even[v] + odd[v]) / whole);
  }
}

// All queries of one key-value head of one row.
template <int HEAD_DIM, typename T>
void attend(const Shape &shape, const T *queries, const int64_t *positions, int64_t kv_head, const T *keys,
            const T *values, T *mixed, float *weights) {
  const int64_t group = shape.heads / shape.kv_heads;
  const float scale = 1 / std::sqrt(static_cast<float>(HEAD_DIM));
  for (int64_t token = 0; token < shape.tokens; ++token) {
    for (int64_t member = 0; member < group; ++member) {
      const int64_t offset = (token * shape.heads + kv_head * group + member) * HEAD_DIM;
      const Query<HEAD_DIM> query(queries + offset, scale);
      attend_one(query, keys, values, positions[token] + 1, weights, mixed + offset);
    }
  }
}

// queries, mixed [rows, tokens, heads, head_dim]; keys, values [rows, kv_heads, capacity, head_dim]; positions int64
// [rows, tokens], below the capacity. A query sees the positions up to its own.
void decode_attention(bool bfloat16, int64_t rows, int64_t tokens, int64_t heads, int64_t kv_heads, int64_t head_dim,
                      int64_t capacity, Address queries, Address positions, Address keys, Address values,
                      Address mixed) {
  const Shape shape{tokens, heads, kv_heads, head_dim, capacity};
  const int64_t row_size = tokens * heads * head_dim, head_size = capacity * head_dim;
  with_type(bfloat16, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    with_head_dim(head_dim, [&](auto known_head_dim) {
#pragma omp parallel
      {
        const AlignedFloats weights = aligned_floats(capacity + kLanes);
#pragma omp for schedule(dynamic, 4)
        for (int64_t item = 0; item < rows * kv_heads; ++item) {
          const int64_t row = item / kv_heads;
          attend<decltype(known_head_dim)::value>(
              shape, at<const T>(queries) + row * row_size, at<const int64_t>(positions) + row * tokens,
              item % kv_heads, at<const T>(keys) + item * head_size, at<const T>(values) + item * head_size,
              at<T>(mixed) + row * row_size, weights.get());
        }
      }
    });
  });
}

}  // namespace

void register_decode_attention(pybind11::module_ &module) {
  module.def("decode_attention", &decode_attention, Release());
  pybind11::list head_dims;
  for (const int64_t head_dim : kHeadDims) head_dims.append(head_dim);
  module.attr("head_dims") = pybind11::tuple(head_dims);
}

}  // namespace megasbp::kernels
