// What module.cpp registers. Addresses are those of contiguous tensors, which the Python side has checked.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "vectors.h"

namespace megasbp::kernels {

using Address = uintptr_t;

template <typename T>
T *at(Address address) {
  return reinterpret_cast<T *>(address);
}

// Calls use with a null pointer of the element type.
template <typename Use>
void with_type(bool bfloat16, const Use &use) {
  if (bfloat16) {
    use(static_cast<BFloat16 *>(nullptr));
  } else {
    use(static_cast<float *>(nullptr));
  }
}

using Release = pybind11::call_guard<pybind11::gil_scoped_release>;

void register_rms_norm(pybind11::module_ &module);
void register_swiglu(pybind11::module_ &module);
void register_rope(pybind11::module_ &module);
void register_cross_entropy(pybind11::module_ &module);
void register_attention(pybind11::module_ &module);
void register_decode_attention(pybind11::module_ &module);
void register_sample(pybind11::module_ &module);

}  // namespace megasbp::kernels
