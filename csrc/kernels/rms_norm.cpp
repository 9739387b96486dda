#include <cmath>
#include <vector>

#include "kernels.h"
#include "parallel.h"

namespace megasbp::kernels {
namespace {

struct Norm {
  int64_t width;
  const float *weight;
};

template <typename T>
void forward(const Norm &norm, float epsilon, int64_t rows, const T *x, T *y, float *scale) {
  const int64_t width = norm.width;
  for (int64_t row = 0; row < rows; ++row, x += width, y += width) {
    Floats squares{};
    for (int64_t i = 0; i < width; i += kLanes) {
      const Floats part = load(x + i, width - i);
      squares += part * part;
    }
    scale[row] = 1 / std::sqrt(sum(squares) / width + epsilon);
    for (int64_t i = 0; i < width; i += kLanes) {
      const int64_t count = width - i;
      store(y + i, load(x + i, count) * scale[row] * load(norm.weight + i, count), count);
    }
  }
}

// weight_gradient [width] is added to.
template <typename T>
void backward(const Norm &norm, int64_t rows, const T *gradient, const T *x, const float *scale, T *x_gradient,
              float *weight_gradient) {
  const int64_t width = norm.width;
  for (int64_t row = 0; row < rows; ++row, gradient += width, x += width, x_gradient += width) {
    // The norm takes away the component of the gradient that only changes the length of x.
    Floats along{};
    for (int64_t i = 0; i < width; i += kLanes) {
      const int64_t count = width - i;
      const Floats normalised = load(x + i, count) * scale[row], incoming = load(gradient + i, count);
      const Floats product = incoming * normalised;
      store(weight_gradient + i, load(weight_gradient + i, count) + product, count);
      along += product * load(norm.weight + i, count);
    }
    const float mean = sum(along) / width;
    for (int64_t i = 0; i < width; i += kLanes) {
      const int64_t count = width - i;
      const Floats normalised = load(x + i, count) * scale[row];
      const Floats whole = load(gradient + i, count) * load(norm.weight + i, count);
      store(x_gradient + i, (whole - normalised * mean) * scale[row], count);
    }
  }
}

// x, y [rows, width]; weight fp32 [width]; scale fp32 [rows], for the backward pass.
void rms_norm_forward(bool bfloat16, int64_t rows, int64_t width, float epsilon, Address x, Address weight, Address y,
                      Address scale) {
  const Norm norm{width, at<float>(weight)};
  with_type(bfloat16, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for_ranges(rows, rows_at_once(width), [&](int64_t, int64_t begin, int64_t end) {
      forward(norm, epsilon, end - begin, at<const T>(x) + begin * width, at<T>(y) + begin * width,
              at<float>(scale) + begin);
    });
  });
}

// weight_gradient: fp32 [width]. The rows are added up range by range, in one order for any number of threads.
void rms_norm_backward(bool bfloat16, int64_t rows, int64_t width, Address gradient, Address x, Address weight,
                       Address scale, Address x_gradient, Address weight_gradient) {
  const Norm norm{width, at<float>(weight)};
  const int64_t step = rows_at_once(width);
  std::vector<float> parts(range_count(rows, step) * width);
  with_type(bfloat16, [&](auto *type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for_ranges(rows, step, [&](int64_t range, int64_t begin, int64_t end) {
      const int64_t offset = begin * width;
      backward(norm, end - begin, at<const T>(gradient) + offset, at<const T>(x) + offset,
               at<const float>(scale) + begin, at<T>(x_gradient) + offset, parts.data() + range * width);
    });
  });
  float *total = at<float>(weight_gradient);
  std::fill(total, total + width, 0.0f);
  for (size_t i = 0; i < parts.size(); ++i) total[i % width] += parts[i];
}

}  // namespace

void register_rms_norm(pybind11::module_ &module) {
  module.def("rms_norm_forward", &rms_norm_forward, Release());
  module.def("rms_norm_backward", &rms_norm_backward, Release());
}

}  // namespace megasbp::kernels
