#include "kernels.h"
#include "parallel.h"

namespace megasbp::kernels {
namespace {

// Table of a token: cosines [head_dim], then elsewhere sines with the sign of the half that they are multiplied with.
struct Rotation {
  int64_t heads, head_dim;
  const float *cosines, *sines;
  float direction;
};

template <typename T>
void rotate(const Rotation &r, int64_t begin, int64_t end, const T *x, T *turned) {
  const int64_t half = r.head_dim / 2;
  for (int64_t token = begin; token < end; ++token) {
    const float *cosines = r.cosines + token * r.head_dim, *sines = r.sines + token * r.head_dim;
    for (int64_t head = 0; head < r.heads; ++head) {
      const int64_t offset = (token * r.heads + head) * r.head_dim;
      for (int64_t i = 0; i < half; i += kLanes) {
        const int64_t count = half - i, low = offset + i, high = low + half;
        const Floats first = load(x + low, count), second = load(x + high, count);
        store(turned + low, first * load(cosines + i, count) + second * load(sines + i, count) * r.direction, count);
        store(turned + high,
              second * load(cosines + half + i, count) + first * load(sines + half + i, count) * r.direction, count);
      }
    }
  }
}

// x, turned [tokens, heads, head_dim]; table fp32 [2, tokens, head_dim]; direction 1 or -1.
void rope_rotate(bool bfloat16, int64_t tokens, int64_t heads, int64_t head_dim, float direction, Address x,
                 Address table, Address turned) {
  const float *cosines = at<const float>(table);
  const Rotation rotation{heads, head_dim, cosines, cosines + tokens * head_dim, direction};
  with_type(bfloat16, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for_ranges(tokens, rows_at_once(heads * head_dim), [&](int64_t, int64_t begin, int64_t end) {
      rotate(rotation, begin, end, at<const T>(x), at<T>(turned));
    });
  });
}

}  // namespace

void register_rope(pybind11::module_ &module) { module.def("rope_rotate", &rope_rotate, Release()); }

}  // namespace megasbp::kernels
