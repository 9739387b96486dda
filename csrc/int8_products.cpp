// Integer products are exact; only the last bits of a bound depend on the kernel.
#include "int8_products.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "float_lanes.h"
#include "parallel_for.h"
#include "turned_row.h"
#include "wide_vectors.h"

#ifdef MEGASBP_AVX512
#define MEGASBP_VNNI 1
#endif

namespace megasbp {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kRowsAtOnce = 256;  // That a thread rounds.
constexpr int64_t kPanel = 32;  // Rows that a step of the VNNI kernel multiplies with each of its queries.
constexpr int kTile = 12;       // Its queries: 12 x 32 sums fill 24 of the 32 registers.
static_assert(kQueriesAtOnce % kTile == 0 && kRowsFilled % kPanel == 0);

// What float arithmetic, that of turning included, may add to a bound, in parts of the product of the lengths.
constexpr float kSlack = 1.0f / (1 << 19);
// A length or a distance is the root of a sum in float, of which this covers the error.
constexpr float kRoundedUp = 1.001f;
constexpr float kSmallest = 1e-30f;

int64_t filled(int64_t size, int64_t step) { return (size + step - 1) / step * step; }

struct Rounding {
  float scale, squared_length, squared_error;
  int32_t sum;
};

// A row of denormal numbers is kept as zeros: 1 / scale would be infinite.
float scale_of(float largest) { return largest < kSmallest ? 0 : largest / 127; }

// Keeps one sum, and one maximum, for every 16th number, so that they fill vector registers.
// width: a multiple of kTurnedWidth.
MEGASBP_WIDE_VECTORS
Rounding round_row_portable(const float *row, int64_t width, int8_t *codes) {
  float largest[kLanes] = {};
  for (int64_t i = 0; i < width; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float size = std::abs(row[i + lane]);
      largest[lane] = size > largest[lane] ? size : largest[lane];
    }
  }
  const float scale = scale_of(*std::max_element(largest, largest + kLanes)), inverse = scale > 0 ? 1 / scale : 0;
  float length[kLanes] = {}, error[kLanes] = {};
  Rounding result{scale, 0, 0, 0};
  for (int64_t i = 0; i < width; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float number = row[i + lane], code = std::nearbyint(number * inverse), rest = number - scale * code;
      codes[i + lane] = static_cast<int8_t>(static_cast<int32_t>(code));
      result.sum += static_cast<int32_t>(code);
      length[lane] += number * number;
      error[lane] += rest * rest;
    }
  }
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    result.squared_length += length[lane];
    result.squared_error += error[lane];
  }
  return result;
}

#ifdef MEGASBP_AVX512

MEGASBP_AVX512 Rounding round_row_avx512(const float *row, int64_t width, int8_t *codes) {
  __m512 largest = _mm512_setzero_ps();
  for (int64_t i = 0; i < width; i += kLanes) largest = _mm512_max_ps(largest, _mm512_abs_ps(_mm512_loadu_ps(row + i)));
  const float scale = scale_of(_mm512_reduce_max_ps(largest));
  const __m512 scales = _mm512_set1_ps(scale), inverse = _mm512_set1_ps(scale > 0 ? 1 / scale : 0);
  __m512 length = _mm512_setzero_ps(), error = _mm512_setzero_ps();
  __m512i sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < width; i += kLanes) {
    const __m512 number = _mm512_loadu_ps(row + i);
    const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(number, inverse));
    const __m512 rest = _mm512_fnmadd_ps(scales, _mm512_cvtepi32_ps(code), number);
    _mm_storeu_si128(reinterpret_cast<__m128i *>(codes + i), _mm512_cvtepi32_epi8(code));
    sum = _mm512_add_epi32(sum, code);
    length = _mm512_fmadd_ps(number, number, length);
    error = _mm512_fmadd_ps(rest, rest, error);
  }
  return {scale, _mm512_reduce_add_ps(length), _mm512_reduce_add_ps(error), _mm512_reduce_add_epi32(sum)};
}

#endif

Rounding round_row(const float *row, int64_t width, int8_t *codes) {
#ifdef MEGASBP_AVX512
  if (has_avx512()) return round_row_avx512(row, width, codes);
#endif
  return round_row_portable(row, width, codes);
}

MEGASBP_WIDE_VECTORS
int32_t product(const int8_t *a, const int8_t *b, int64_t width) {
  int32_t sum = 0;
  for (int64_t i = 0; i < width; ++i) sum += static_cast<int16_t>(a[i]) * static_cast<int16_t>(b[i]);
  return sum;
}

float bound(const Int8Rows &queries, int64_t query, const Int8Rows &rows, int64_t row, int32_t sum) {
  const auto q = static_cast<size_t>(query), r = static_cast<size_t>(row);
  return static_cast<float>(sum) * (queries.scale[q] * rows.scale[r]) + queries.length[q] * rows.error[r] +
         queries.error[q] * rows.reach[r];
}

#ifdef MEGASBP_VNNI

// [panel][group of 4 numbers][row of the panel][number]: one register holds 4 numbers of 16 rows.
std::vector<uint8_t> pack(const std::vector<int8_t> &codes, int64_t rows, int64_t width) {
  std::vector<uint8_t> packed(codes.size());
  uint8_t *out = packed.data();
  for (int64_t panel = 0; panel < rows; panel += kPanel) {
    for (int64_t start = 0; start < width; start += 4) {
      for (int64_t row = panel; row < panel + kPanel; ++row, out += 4) {
        uint32_t four;
        std::memcpy(&four, codes.data() + row * width + start, 4);
        four ^= 0x80808080u;  // Adds 128: the instruction multiplies signed with unsigned numbers.
        std::memcpy(out, &four, 4);
      }
    }
  }
  return packed;
}

// sum += products of 4 unsigned with 4 signed numbers, in each of 16 lanes. Not the compiler's function for it: GCC 12
// then keeps the sums of a tile in memory, which takes 2.5 times as long.
#define MEGASBP_ADD_PRODUCTS(sum, unsigned_numbers, signed_numbers) \
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_numbers), "v"(signed_numbers))

__attribute__((target("avx512f,avx512bw,avx512vnni")))
void tile_bounds(const Int8Rows &queries, int64_t first, const Int8Rows &rows, int64_t panel, float *bounds) {
  const int64_t width = queries.padded_width;
  const int8_t *query = queries.codes.data() + first * width;
  const uint8_t *row = rows.packed.data() + panel * kPanel * width;
  __m512i sums[kTile][2];
#pragma GCC unroll 12
  for (int q = 0; q < kTile; ++q)
    sums[q][0] = sums[q][1] = _mm512_set1_epi32(-128 * queries.sum[static_cast<size_t>(first + q)]);
#pragma GCC unroll 1
  for (int64_t group = 0; group < width / 4; ++group) {
    const __m512i low = _mm512_loadu_si512(row + group * kPanel * 4);
    const __m512i high = _mm512_loadu_si512(row + group * kPanel * 4 + 64);
#pragma GCC unroll 12
    for (int q = 0; q < kTile; ++q) {
      int32_t four;
      std::memcpy(&four, query + q * width + group * 4, 4);
      const __m512i all = _mm512_set1_epi32(four);
      MEGASBP_ADD_PRODUCTS(sums[q][0], low, all);
      MEGASBP_ADD_PRODUCTS(sums[q][1], high, all);
    }
  }
#pragma GCC unroll 12
  for (int q = 0; q < kTile; ++q) {
    const auto at = static_cast<size_t>(first + q);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const int64_t column = panel * kPanel + half * 16;
      const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(queries.scale[at]), _mm512_loadu_ps(rows.scale.data() + column));
      __m512 result = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[q][half]), scale);
      result = _mm512_fmadd_ps(_mm512_set1_ps(queries.length[at]), _mm512_loadu_ps(rows.error.data() + column), result);
      result = _mm512_fmadd_ps(_mm512_set1_ps(queries.error[at]), _mm512_loadu_ps(rows.reach.data() + column), result);
      _mm512_storeu_ps(bounds + q * rows.padded_count + column, result);
    }
  }
}

#endif

}  // namespace

bool has_vnni() {
#ifdef MEGASBP_VNNI
  static const bool found = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vnni");
  return found;
#else
  return false;
#endif
}

void Int8Rows::round(const FloatRows &vectors, int64_t start, int64_t stop, bool as_columns, int64_t threads) {
  count = stop - start;
  width = vectors.width();
  padded_count = filled(count, as_columns ? kRowsFilled : kQueriesAtOnce);
  padded_width = filled(width, kTurnedWidth);
  const auto rows = static_cast<size_t>(padded_count);
  codes.resize(rows * static_cast<size_t>(padded_width));
  std::fill(codes.begin() + count * padded_width, codes.end(), 0);
  sum.resize(rows);
  std::fill(sum.begin() + count, sum.end(), 0);
  for (std::vector<float> *each : {&scale, &length, &error, &reach}) {
    each->resize(rows);
    std::fill(each->begin() + count, each->end(), 0);
  }
  const TurnedRows turned(vectors);
  parallel_for((count + kRowsAtOnce - 1) / kRowsAtOnce, threads, [&](int64_t part) {
    std::vector<float> row(static_cast<size_t>(padded_width));
    for (int64_t i = part * kRowsAtOnce; i < std::min(count, (part + 1) * kRowsAtOnce); ++i) {
      const auto at = static_cast<size_t>(i);
      turned.read(start + i, row.data());
      const Rounding rounding = round_row(row.data(), padded_width, codes.data() + i * padded_width);
      sum[at] = rounding.sum;
      scale[at] = rounding.scale;
      length[at] = std::sqrt(rounding.squared_length) * kRoundedUp;
      error[at] = std::sqrt(rounding.squared_error) * kRoundedUp + kSlack * length[at];
      reach[at] = length[at] + error[at];
    }
  });
  packed.clear();
#ifdef MEGASBP_VNNI
  if (as_columns && has_vnni()) packed = pack(codes, padded_count, padded_width);
#endif
}

void upper_bounds(const Int8Rows &queries, const Int8Rows &rows, float *bounds) {
#ifdef MEGASBP_VNNI
  if (!rows.packed.empty()) {
    for (int64_t panel = 0; panel < filled(rows.count, kPanel) / kPanel; ++panel) {
      for (int64_t tile = 0; tile < filled(queries.count, kTile); tile += kTile)
        tile_bounds(queries, tile, rows, panel, bounds + tile * rows.padded_count);
    }
    return;
  }
#endif
  const int64_t width = queries.padded_width;
  for (int64_t query = 0; query < queries.count; ++query) {
    for (int64_t row = 0; row < rows.count; ++row)
      bounds[query * rows.padded_count + row] =
          bound(queries, query, rows, row,
                product(queries.codes.data() + query * width, rows.codes.data() + row * width, width));
  }
}

}  // namespace megasbp
