// The inner product of two rows, rounded to a grid: the same bits on every machine, whatever the vector units.
#pragma once

#include <cstdint>
#include <vector>

#include "float_rows.h"

namespace megasbp {

// Similarities are rounded to multiples of 2^-20, so that equal vectors tie whatever they are compared with.
constexpr double kGrid = 1 << 20;

// A row in double, to be multiplied with one row after the other.
// The product of two floats is exact in double and the order of the sum is fixed by 16 lanes, so neither vector
// instructions nor fused multiply-add change a bit.
class ExactProduct {
 public:
  // Holds a reference to `rows`.
  ExactProduct(int64_t width, const FloatRows &rows);

  // Has a row fetched from memory, for a call of `with` that comes soon.
  void prefetch(int64_t row) const;

  void take(const FloatRows &queries, int64_t query);
  // Whether the product with a row is surely below a limit: a sum in float says so, quickly.
  // lengths: at least the product of the two rows' lengths.
  bool below(int64_t row, float limit, float lengths) const;
  // Of the query taken last with a row of `rows`, in multiples of 2^-20.
  double with(int64_t row);

 private:
  const FloatRows &rows_;
  std::vector<double> query_;       // padded with zeros
  std::vector<float> query_single_;  // likewise
  std::vector<float> space_;
};

}  // namespace megasbp
