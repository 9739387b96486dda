// The array type in which indices cross from Python.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>

namespace megasbp {

using IndexArray = pybind11::array_t<int64_t, pybind11::array::c_style>;

}  // namespace megasbp
