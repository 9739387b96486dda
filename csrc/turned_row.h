// Rows turned by a matrix that makes their numbers alike in size, so that one scale serves all of a row.
#pragma once

#include <cstdint>
#include <vector>

#include "float_rows.h"

namespace megasbp {

// A turned row has as many numbers as fill a multiple of this.
constexpr int64_t kTurnedWidth = 64;

// Rows times a matrix of signs and Hadamard's matrices: 16 numbers side by side are mixed, and those of the row's four
// quarters. Lengths and inner products stay, but for 2^-21 of the product of the lengths that the float sums may cost. What
// a rounding to 8 bits moves a row by becomes less than half in vectors whose first numbers are large, as those of LSA.
class TurnedRows {
 public:
  explicit TurnedRows(const FloatRows &rows);

  // Writes a row, filled with zeros before it was turned.
  void read(int64_t index, float *out) const;

 private:
  const FloatRows &rows_;
  // Without them, numbers that are all positive would add up in one place.
  std::vector<float> signs_;
};

}  // namespace megasbp
