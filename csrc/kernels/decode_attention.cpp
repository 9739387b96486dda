#include <cmath>
#include <stdexcept>
#include <string>

#include "attention_rows.h"
#include "kernels.h"

namespace megasbp::kernels {
namespace {

struct Shape {
  int64_t tokens, heads, kv_heads, head_dim, capacity;
};

// All queries of one key-value head of one row.
template <int VECTORS, typename T>
MEGASBP_INLINE void attend(const Shape &shape, const T *queries, const int64_t *positions, int64_t kv_head,
                           const T *keys, const T *values, T *mixed, float *weights) {
  const int64_t group = shape.heads / shape.kv_heads;
  const float scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
  for (int64_t token = 0; token < shape.tokens; ++token) {
    for (int64_t member = 0; member < group; ++member) {
      const int64_t offset = (token * shape.heads + kv_head * group + member) * shape.head_dim;
      const int64_t count = positions[token] + 1;
      Floats query[VECTORS], sum[VECTORS];
      load_row<VECTORS>(queries + offset, query);
      for (Floats &part : query) part *= scale;
      const Softmax softmax = softmax_weights<VECTORS>(query, Head<T>{keys, shape.head_dim}, count, weights);
      mix<VECTORS>(weights, Head<T>{values, shape.head_dim}, count, sum);
      for (int v = 0; v < VECTORS; ++v) store(mixed + offset + v * kLanes, sum[v] / softmax.sum);
    }
  }
}

#define MEGASBP_ATTEND(vectors)                                                                             \
  MEGASBP_KERNEL void attend_##vectors(const Shape &s, const float *q, const int64_t *p, int64_t h,   \
                                             const float *k, const float *v, float *m, float *w) {          \
    attend<vectors>(s, q, p, h, k, v, m, w);                                                                \
  }                                                                                                         \
  MEGASBP_KERNEL void attend_##vectors(const Shape &s, const BFloat16 *q, const int64_t *p, int64_t h, \
                                             const BFloat16 *k, const BFloat16 *v, BFloat16 *m, float *w) { \
    attend<vectors>(s, q, p, h, k, v, m, w);                                                                \
  }
MEGASBP_HEAD_DIMS(MEGASBP_ATTEND)

template <typename T>
void attend_any(const Shape &s, const T *q, const int64_t *p, int64_t h, const T *k, const T *v, T *m, float *w) {
  switch (s.head_dim) {
#define MEGASBP_CASE(vectors) \
  case vectors * kLanes:      \
    return attend_##vectors(s, q, p, h, k, v, m, w);
    MEGASBP_HEAD_DIMS(MEGASBP_CASE)
  }
  throw std::invalid_argument("head_dim " + std::to_string(s.head_dim) + " has no kernel");
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
#pragma omp parallel
    {
      const AlignedFloats weights = aligned_floats(capacity + kLanes);
#pragma omp for schedule(dynamic, 4)
      for (int64_t item = 0; item < rows * kv_heads; ++item) {
        const int64_t row = item / kv_heads;
        attend_any(shape, at<const T>(queries) + row * row_size, at<const int64_t>(positions) + row * tokens,
                   item % kv_heads, at<const T>(keys) + item * head_size, at<const T>(values) + item * head_size,
                   at<T>(mixed) + row * row_size, weights.get());
      }
    }
  });
}

}  // namespace

void register_decode_attention(pybind11::module_ &module) {
  module.def("decode_attention", &decode_attention, Release());
  pybind11::list head_dims;
#define MEGASBP_LIST(vectors) head_dims.append(vectors * kLanes);
  MEGASBP_HEAD_DIMS(MEGASBP_LIST)
  module.attr("head_dims") = pybind11::tuple(head_dims);
}

}  // namespace megasbp::kernels
