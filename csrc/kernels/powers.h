// The softmax's numerators: what attention and the loss have in common.
#pragma once

#include "vectors.h"

namespace megasbp::kernels {

struct Powers {
  float largest, sum;
};

// exp(number - largest) of each, written if `powers` is not null, which may be the numbers' own memory.
inline Powers take_powers(int64_t size, const float *numbers, float *powers) {
  const float shift = largest_of(size, numbers);
  Floats total{};
  for (int64_t i = 0; i < size; i += kLanes) {
    const Floats power = exponential(load(numbers + i, size - i, -__builtin_inff()) - shift);
    total += power;
    if (powers != nullptr) store(powers + i, power, size - i);
  }
  return {shift, sum(total)};
}

}  // namespace megasbp::kernels
