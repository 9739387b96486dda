#include <cmath>
#include <cstring>

#include "attention_rows.h"
#include "kernels.h"

namespace megasbp::kernels {
namespace {

struct Shape {
  int64_t heads, kv_heads, head_dim;
};

// Memory of one thread, for the longest segment.
struct Scratch {
  AlignedFloats weights, slopes, key_gradient, value_gradient;

  Scratch(int64_t longest, int64_t head_dim, bool backward)
      : weights(aligned_floats(longest + kLanes)),
        slopes(aligned_floats(backward ? longest + kLanes : 0)),
        key_gradient(aligned_floats(backward ? longest * head_dim : 0)),
        value_gradient(aligned_floats(backward ? longest * head_dim : 0)) {}
};

struct Forward {
  const float *q, *k, *v;
  float *mixed, *log_sums;
};

struct Backward {
  const float *q, *k, *v, *mixed, *log_sums, *gradient;
  float *q_gradient, *k_gradient, *v_gradient;
};

// One key-value head of the segment [begin, end) of tokens.
template <int VECTORS>
MEGASBP_INLINE void attend(const Shape &s, const Forward &f, int64_t begin, int64_t end, int64_t kv_head,
                           Scratch &scratch) {
  const int64_t group = s.heads / s.kv_heads, stride = s.kv_heads * s.head_dim;
  const float scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
  const int64_t first = (begin * s.kv_heads + kv_head) * s.head_dim;
  const Head<float> keys{f.k + first, stride}, values{f.v + first, stride};
  float *weights = scratch.weights.get();
  for (int64_t token = begin; token < end; ++token) {
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const int64_t row = token * s.heads + head;
      Floats query[VECTORS], mixed[VECTORS];
      load_row<VECTORS>(f.q + row * s.head_dim, query);
      for (Floats &part : query) part *= scale;
      const Softmax softmax = softmax_weights<VECTORS>(query, keys, token - begin + 1, weights);
      mix<VECTORS>(weights, values, token - begin + 1, mixed);
      for (int v = 0; v < VECTORS; ++v) store(f.mixed + row * s.head_dim + v * kLanes, mixed[v] / softmax.sum);
      f.log_sums[row] = softmax.largest + std::log(softmax.sum);
    }
  }
}

template <int VECTORS>
MEGASBP_INLINE void attend_backward(const Shape &s, const Backward &b, int64_t begin, int64_t end, int64_t kv_head,
                                    Scratch &scratch) {
  const int64_t group = s.heads / s.kv_heads, stride = s.kv_heads * s.head_dim, length = end - begin;
  const float scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
  const int64_t first = (begin * s.kv_heads + kv_head) * s.head_dim;
  const Head<float> keys{b.k + first, stride}, values{b.v + first, stride};
  float *weights = scratch.weights.get(), *slopes = scratch.slopes.get();
  float *key_gradient = scratch.key_gradient.get(), *value_gradient = scratch.value_gradient.get();
  std::fill(key_gradient, key_gradient + length * s.head_dim, 0.0f);
  std::fill(value_gradient, value_gradient + length * s.head_dim, 0.0f);
  for (int64_t token = begin; token < end; ++token) {
    const int64_t count = token - begin + 1;
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const int64_t row = token * s.heads + head, offset = row * s.head_dim;
      Floats query[VECTORS], gradient[VECTORS], q_gradient[VECTORS] = {};
      load_row<VECTORS>(b.q + offset, query);
      load_row<VECTORS>(b.gradient + offset, gradient);
      for (Floats &part : query) part *= scale;
      const float delta = sum(products<VECTORS>(gradient, b.mixed + offset));
      all_products<VECTORS>(query, keys, count, weights);
      all_products<VECTORS>(gradient, values, count, slopes);
      for (int64_t i = 0; i < count; i += kLanes) {
        const Floats weight = exponential(load(weights + i) - b.log_sums[row]);
        store(weights + i, weight);
        store(slopes + i, weight * (load(slopes + i) - delta));
      }
      for (int64_t i = 0; i < count; ++i) {
        float *k_gradient = key_gradient + i * s.head_dim, *v_gradient = value_gradient + i * s.head_dim;
        for (int v = 0; v < VECTORS; ++v) {
          q_gradient[v] += slopes[i] * load(keys[i] + v * kLanes);
          store(k_gradient + v * kLanes, load(k_gradient + v * kLanes) + slopes[i] * query[v]);
          store(v_gradient + v * kLanes, load(v_gradient + v * kLanes) + weights[i] * gradient[v]);
        }
      }
      for (int v = 0; v < VECTORS; ++v) store(b.q_gradient + offset + v * kLanes, q_gradient[v] * scale);
    }
  }
  for (int64_t i = 0; i < length; ++i) {
    std::memcpy(b.k_gradient + first + i * stride, key_gradient + i * s.head_dim, s.head_dim * sizeof(float));
    std::memcpy(b.v_gradient + first + i * stride, value_gradient + i * s.head_dim, s.head_dim * sizeof(float));
  }
}

#define MEGASBP_ATTEND(vectors)                                                                               \
  MEGASBP_KERNEL void run_##vectors(const Shape &s, const Forward &f, int64_t begin, int64_t end,       \
                                          int64_t kv_head, Scratch &scratch) {                                \
    attend<vectors>(s, f, begin, end, kv_head, scratch);                                                      \
  }                                                                                                           \
  MEGASBP_KERNEL void run_##vectors(const Shape &s, const Backward &b, int64_t begin, int64_t end,      \
                                          int64_t kv_head, Scratch &scratch) {                                \
    attend_backward<vectors>(s, b, begin, end, kv_head, scratch);                                             \
  }
MEGASBP_HEAD_DIMS(MEGASBP_ATTEND)

template <typename Pass>
void run_any(const Shape &s, const Pass &pass, int64_t begin, int64_t end, int64_t kv_head, Scratch &scratch) {
  switch (s.head_dim) {
#define MEGASBP_CASE(vectors) \
  case vectors * kLanes:      \
    return run_##vectors(s, pass, begin, end, kv_head, scratch);
    MEGASBP_HEAD_DIMS(MEGASBP_CASE)
  }
}

// starts: int64 [segments + 1], rising from 0 to the number of tokens.
template <typename Pass>
void for_segments(const Shape &shape, int64_t segments, const int64_t *starts, bool backward, const Pass &pass) {
  int64_t longest = 0;
  for (int64_t i = 0; i < segments; ++i) longest = std::max(longest, starts[i + 1] - starts[i]);
#pragma omp parallel
  {
    Scratch scratch(longest, shape.head_dim, backward);
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < segments * shape.kv_heads; ++item) {
      const int64_t segment = item / shape.kv_heads;
      run_any(shape, pass, starts[segment], starts[segment + 1], item % shape.kv_heads, scratch);
    }
  }
}

// q, mixed fp32 [tokens, heads, head_dim]; k, v [tokens, kv_heads, head_dim]; log_sums fp32 [tokens, heads].
void attention_forward(int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t segments, Address starts, Address q,
                       Address k, Address v, Address mixed, Address log_sums) {
  const Forward pass{at<const float>(q), at<const float>(k), at<const float>(v), at<float>(mixed),
                     at<float>(log_sums)};
  for_segments({heads, kv_heads, head_dim}, segments, at<const int64_t>(starts), false, pass);
}

// gradient: of mixed; the three others are written.
void attention_backward(int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t segments, Address starts, Address q,
                        Address k, Address v, Address mixed, Address log_sums, Address gradient, Address q_gradient,
                        Address k_gradient, Address v_gradient) {
  const Backward pass{at<const float>(q),        at<const float>(k),        at<const float>(v),
                      at<const float>(mixed),    at<const float>(log_sums), at<const float>(gradient),
                      at<float>(q_gradient),     at<float>(k_gradient),     at<float>(v_gradient)};
  for_segments({heads, kv_heads, head_dim}, segments, at<const int64_t>(starts), true, pass);
}

}  // namespace

void register_attention(pybind11::module_ &module) {
  module.def("attention_forward", &attention_forward, Release());
  module.def("attention_backward", &attention_backward, Release());
}

}  // namespace megasbp::kernels
