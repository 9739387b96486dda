#include "kernels.h"
#include "parallel.h"

namespace megasbp::kernels {
namespace {

template <typename T>
void forward(int64_t size, const T *gate, const T *up, T *product) {
  for (int64_t i = 0; i < size; i += kLanes) {
    const int64_t count = size - i;
    const Floats x = load(gate + i, count);
    store(product + i, x / (exponential(-x) + 1.0f) * load(up + i, count), count);
  }
}

template <typename T>
void backward(int64_t size, const T *gradient, const T *gate, const T *up, T *gate_gradient, T *up_gradient) {
  for (int64_t i = 0; i < size; i += kLanes) {
    const int64_t count = size - i;
    const Floats x = load(gate + i, count), incoming = load(gradient + i, count);
    const Floats sigmoid = 1.0f / (exponential(-x) + 1.0f), activation = x * sigmoid;
    // silu' = sigmoid + silu * (1 - sigmoid)
    const Floats slope = sigmoid + activation * (1.0f - sigmoid);
    store(up_gradient + i, activation * incoming, count);
    store(gate_gradient + i, slope * load(up + i, count) * incoming, count);
  }
}

void swiglu_forward(bool bfloat16, int64_t size, Address gate, Address up, Address product) {
  with_type(bfloat16, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for_ranges(size, kNumbersAtOnce, [&](int64_t, int64_t begin, int64_t end) {
      forward(end - begin, at<const T>(gate) + begin, at<const T>(up) + begin, at<T>(product) + begin);
    });
  });
}

void swiglu_backward(bool bfloat16, int64_t size, Address gradient, Address gate, Address up, Address gate_gradient,
                     Address up_gradient) {
  with_type(bfloat16, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for_ranges(size, kNumbersAtOnce, [&](int64_t, int64_t begin, int64_t end) {
      backward(end - begin, at<const T>(gradient) + begin, at<const T>(gate) + begin, at<const T>(up) + begin,
               at<T>(gate_gradient) + begin, at<T>(up_gradient) + begin);
    });
  });
}

}  // namespace

void register_swiglu(pybind11::module_ &module) {
  module.def("swiglu_forward", &swiglu_forward, Release());
  module.def("swiglu_backward", &swiglu_backward, Release());
}

}  // namespace megasbp::kernels
