#include <cmath>

#include "kernels.h"
#include "parallel.h"
#include "powers.h"

namespace megasbp::kernels {
namespace {

template <typename T>
void scaled(int64_t size, const float *values, float factor, T *to) {
  for (int64_t i = 0; i < size; i += kLanes) store(to + i, load(values + i, size - i) * factor, size - i);
}

// logits: fp32 [tokens, vocabulary], overwritten; labels int64 [tokens]; nats fp32 [tokens].
// gradient [tokens, vocabulary], of fp32 (which may be the logits' own memory) or bf16, or 0: scale * (softmax - one-hot),
// with scale fp32 [tokens], or 0 for ones.
void cross_entropy(bool bfloat16, int64_t tokens, int64_t vocabulary, Address logits, Address labels, Address nats,
                   Address scale, Address gradient) {
  with_type(bfloat16, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for_ranges(tokens, rows_at_once(vocabulary), [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t token = begin; token < end; ++token) {
        float *row = at<float>(logits) + token * vocabulary;
        const int64_t label = at<const int64_t>(labels)[token];
        const float logit = row[label];
        const Powers powers = take_powers(vocabulary, row, gradient != 0 ? row : nullptr);
        const float loss = std::log(powers.sum) - (logit - powers.largest);
        at<float>(nats)[token] = loss;
        if (gradient == 0) continue;
        const float factor = scale != 0 ? at<const float>(scale)[token] : 1.0f;
        T *to = at<T>(gradient) + token * vocabulary;
        scaled(vocabulary, row, factor / powers.sum, to);
        store(to + label, all(factor * std::expm1(-loss)), 1);
      }
    });
  });
}

}  // namespace

void register_cross_entropy(pybind11::module_ &module) { module.def("cross_entropy", &cross_entropy, Release()); }

}  // namespace megasbp::kernels
