// A matrix of single or half precision as it came from Python, read row by row.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "wide_vectors.h"

namespace megasbp {

// Numbers of half precision that are finite. A factor of 2^112 is what the two exponents differ by, and turns what is
// denormal in half precision into what it stands for.
MEGASBP_WIDE_VECTORS
inline void widen(const uint16_t *half, int64_t count, float *out) {
  constexpr float kExponents = 5192296858534827628530496329220096.0f;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t size = static_cast<uint32_t>(half[i] & 0x7fff) << 13;
    const uint32_t sign = static_cast<uint32_t>(half[i] & 0x8000) << 16;
    float number;
    std::memcpy(&number, &size, 4);
    number *= kExponents;
    uint32_t bits;
    std::memcpy(&bits, &number, 4);
    bits |= sign;
    std::memcpy(&out[i], &bits, 4);
  }
}

class FloatRows {
 public:
  // Holds no reference to `array`. Throws std::invalid_argument unless it is a C-contiguous matrix of float32 or float16.
  FloatRows(const pybind11::array &array, const char *name) {
    const char kind = array.dtype().kind();
    half_ = kind == 'f' && array.itemsize() == 2;
    const bool single = kind == 'f' && array.itemsize() == 4;
    if (array.ndim() != 2 || !(half_ || single) || !(array.flags() & pybind11::array::c_style))
      throw std::invalid_argument(std::string(name) + " must be a float32 or float16 matrix, stored by rows");
    data_ = array.data();
    count_ = array.shape(0);
    width_ = array.shape(1);
  }

  int64_t count() const { return count_; }
  int64_t width() const { return width_; }

  // All rows, one after the other, in their own precision; nullptr if they are of the other one.
  const uint16_t *half() const { return half_ ? static_cast<const uint16_t *>(data_) : nullptr; }
  const float *single() const { return half_ ? nullptr : static_cast<const float *>(data_); }

  // A row, where it lies or widened into `space`, which holds width() numbers.
  const float *row(int64_t index, float *space) const {
    if (!half_) return static_cast<const float *>(data_) + index * width_;
    widen(static_cast<const uint16_t *>(data_) + index * width_, width_, space);
    return space;
  }

 private:
  const void *data_;
  int64_t count_, width_;
  bool half_;
};

}  // namespace megasbp
