// Rows rounded to 8 bits, with how far the rounding has moved each of them.
#pragma once

#include <cstdint>
#include <vector>

#include "float_rows.h"

namespace megasbp {

// A row r, turned by a matrix that is the same for all, is kept as scale * codes, codes in [-127, 127]. Padding, of the
// number of rows, is zeros; the width is padded before the turn.
struct Int8Rows {
  // Rounds rows [first, last), in the place of what is there. as_columns: they will be the rows, not the queries, of
  // upper_bounds.
  void round(const FloatRows &vectors, int64_t first, int64_t last, bool as_columns, int64_t threads);

  int64_t count = 0, width = 0;
  int64_t padded_count = 0, padded_width = 0;
  std::vector<int8_t> codes;    // [padded_count, padded_width]
  std::vector<uint8_t> packed;  // codes + 128 in the order in which the VNNI kernel reads them; empty without VNNI
  std::vector<int32_t> sum;     // of a row's codes
  std::vector<float> scale;
  std::vector<float> length;    // of the row as it was
  std::vector<float> error;     // distance between the row and what is kept, and what float sums may add to it
  std::vector<float> reach;     // at least the length of what is kept
};

// Upper bounds of the inner products of queries, kQueriesAtOnce at most, with all rows: bounds[query][row],
// kQueriesAtOnce lines of rows.padded_count.
// A product lies at most twice length(query) * error(row) + error(query) * reach(row) below its bound.
void upper_bounds(const Int8Rows &queries, const Int8Rows &rows, float *bounds);

constexpr int64_t kQueriesAtOnce = 48;
constexpr int64_t kRowsFilled = 64;  // padded_count of rows is a multiple of this, that of queries of kQueriesAtOnce.

// Whether this processor multiplies 8-bit integers in its vector units (AVX512-VNNI).
bool has_vnni();

}  // namespace megasbp
