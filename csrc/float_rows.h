// Rows of single or half precision as they came from Python.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

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

// Rows of one matrix, or those at some positions of several, which are not copied together.
class FloatRows {
 public:
  // Holds no reference to what it is given: a matrix, or a list of (matrix, int32 positions).
  // Throws std::invalid_argument unless matrices are C-contiguous, of float32 or float16, all of one type and width;
  // std::out_of_range for a position outside its matrix.
  FloatRows(const pybind11::object &rows, const char *name) {
    if (pybind11::isinstance<pybind11::array>(rows)) {
      const Matrix matrix(pybind11::reinterpret_borrow<pybind11::array>(rows), name);
      half_ = matrix.half;
      width_ = matrix.width;
      count_ = matrix.count;
      data_ = matrix.data;
      return;
    }
    bool first = true;
    for (const pybind11::handle &part : pybind11::reinterpret_borrow<pybind11::sequence>(rows)) {
      const auto pair = pybind11::cast<pybind11::tuple>(part);
      const Matrix matrix(pybind11::cast<pybind11::array>(pair[0]), name);
      const auto positions = pybind11::cast<pybind11::array_t<int32_t, pybind11::array::c_style>>(pair[1]);
      if (!first && (matrix.half != half_ || matrix.width != width_))
        throw std::invalid_argument(std::string(name) + " must be matrices of one type and width");
      first = false;
      half_ = matrix.half;
      width_ = matrix.width;
      starts_.reserve(starts_.size() + static_cast<size_t>(positions.size()));
      for (pybind11::ssize_t i = 0; i < positions.size(); ++i) {
        const int64_t position = positions.data()[i];
        if (position < 0 || position >= matrix.count)
          throw std::out_of_range(std::string(name) + ": position " + std::to_string(position) + " is outside [0, " +
                                  std::to_string(matrix.count) + ")");
        starts_.push_back(matrix.data + position * width_ * size());
      }
    }
    count_ = static_cast<int64_t>(starts_.size());
  }

  int64_t count() const { return count_; }
  int64_t width() const { return width_; }
  // Bytes of a number.
  int64_t size() const { return half_ ? 2 : 4; }
  bool is_half() const { return half_; }

  const char *start(int64_t index) const {
    return starts_.empty() ? data_ + index * width_ * size() : starts_[static_cast<size_t>(index)];
  }
  // A row in its own precision, which must be this one.
  const uint16_t *half(int64_t index) const { return reinterpret_cast<const uint16_t *>(start(index)); }
  const float *single(int64_t index) const { return reinterpret_cast<const float *>(start(index)); }

  // A row, where it lies or widened into `space`, which holds width() numbers.
  const float *row(int64_t index, float *space) const {
    if (!half_) return single(index);
    widen(half(index), width_, space);
    return space;
  }

 private:
  struct Matrix {
    Matrix(const pybind11::array &array, const char *name) {
      const char kind = array.dtype().kind();
      half = kind == 'f' && array.itemsize() == 2;
      const bool single = kind == 'f' && array.itemsize() == 4;
      if (array.ndim() != 2 || !(half || single) || !(array.flags() & pybind11::array::c_style))
        throw std::invalid_argument(std::string(name) + " must be a float32 or float16 matrix, stored by rows");
      data = static_cast<const char *>(array.data());
      count = array.shape(0);
      width = array.shape(1);
    }
    const char *data;
    int64_t count, width;
    bool half;
  };

  const char *data_ = nullptr;
  std::vector<const char *> starts_;  // Empty for a whole matrix.
  int64_t count_ = 0, width_ = 0;
  bool half_ = false;
};

}  // namespace megasbp
