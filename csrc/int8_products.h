// Rows rounded to 8 bits, with how far the rounding has moved each of them.
#pragma once

#include <cstdint>
#include <vector>

#include "float_rows.h"

namespace megasbp {

// A row r is kept as scale * codes, codes in [-127, 127]. Padding, of the width and of the number of rows, is zeros.
struct Int8Rows {
  // as_columns: they will be the rows, not the queries, of upper_bounds.
  Int8Rows(const FloatRows &vectors, bool as_columns, int64_t threads);

  int64_t count, width;
  int64_t padded_count, padded_width;
  std::vector<int8_t> codes;    // [padded_count, padded_width]
  std::vector<uint8_t> packed;  // codes + 128 in the order in which the VNNI kernel reads them; empty without VNNI
  std::vector<int32_t> sum;     // of a row's codes
  std::vector<float> scale;
  std::vector<float> length;    // of the row as it was
  std::vector<float> error;     // distance between the row and what is kept, and what float sums may add to it
  std::vector<float> reach;     // at least the length of what is kept
};

// Upper bounds of the inner products of queries [first, first + kQueriesAtOnce) with all rows:
// bounds[query - first][row], rows.padded_count to a line.
// A product lies at most twice length(query) * error(row) + error(query) * reach(row) below its bound.
void upper_bounds(const Int8Rows &queries, int64_t first, const Int8Rows &rows, float *bounds);

constexpr int64_t kQueriesAtOnce = 48;

// Whether this processor multiplies 8-bit integers in its vector units (AVX512-VNNI).
bool has_vnni();

}  // namespace megasbp
