#include "turned_row.h"

#include <algorithm>

#include "float_lanes.h"
#include "wide_vectors.h"

namespace megasbp {
namespace {

constexpr int64_t kLanes = 16;
// Of 64 numbers that are mixed.
constexpr float kKeepsLength = 1.0f / 8;

// row: filled with zeros.
MEGASBP_WIDE_VECTORS
void turn(float *row, const float *signs, int64_t width) {
  const int64_t quarter = width / 4;
  for (int64_t i = 0; i < quarter; ++i) {
    float *at = row + i;
    const float a = at[0] * signs[i], b = at[quarter] * signs[quarter + i];
    const float c = at[2 * quarter] * signs[2 * quarter + i], d = at[3 * quarter] * signs[3 * quarter + i];
    at[0] = (a + b) + (c + d);
    at[quarter] = (a - b) + (c - d);
    at[2 * quarter] = (a + b) - (c + d);
    at[3 * quarter] = (a - b) - (c - d);
  }
  for (int64_t first = 0; first < width; first += kLanes) {
    float *lanes = row + first;
    for (int64_t apart = 1; apart < kLanes; apart *= 2) {
      float mixed[kLanes];
      for (int64_t lane = 0; lane < kLanes; ++lane)
        mixed[lane] = lanes[lane ^ apart] + (lane & apart ? -lanes[lane] : lanes[lane]);
      std::copy(mixed, mixed + kLanes, lanes);
    }
  }
}

#ifdef MEGASBP_AVX512

// Lanes are those of turn: each plus or minus the one that lies 1, 2, 4, 8 apart.
MEGASBP_AVX512 inline __m512 mix_lanes(__m512 x) {
  const auto minus = [](uint16_t lanes, __m512 value) MEGASBP_AVX512 {
    return _mm512_mask_sub_ps(value, lanes, _mm512_setzero_ps(), value);
  };
  x = _mm512_add_ps(_mm512_permute_ps(x, 0xb1), minus(0xaaaa, x));
  x = _mm512_add_ps(_mm512_permute_ps(x, 0x4e), minus(0xcccc, x));
  x = _mm512_add_ps(_mm512_shuffle_f32x4(x, x, 0xb1), minus(0xf0f0, x));
  return _mm512_add_ps(_mm512_shuffle_f32x4(x, x, 0x4e), minus(0xff00, x));
}

template <typename Number>
MEGASBP_AVX512 void turn_avx512(const Number *row, int64_t width, const float *signs, int64_t padded_width, float *out) {
  const int64_t quarter = padded_width / 4;
  const auto part = [&](int64_t at) MEGASBP_AVX512 {
    const __m512 numbers = at < width ? load(row + at, lanes_of(width - at)) : _mm512_setzero_ps();
    return _mm512_mul_ps(numbers, _mm512_loadu_ps(signs + at));
  };
  for (int64_t i = 0; i < quarter; i += kLanes) {
    const __m512 a = part(i), b = part(quarter + i), c = part(2 * quarter + i), d = part(3 * quarter + i);
    const __m512 ab = _mm512_add_ps(a, b), cd = _mm512_add_ps(c, d);
    const __m512 a_b = _mm512_sub_ps(a, b), c_d = _mm512_sub_ps(c, d);
    _mm512_storeu_ps(out + i, mix_lanes(_mm512_add_ps(ab, cd)));
    _mm512_storeu_ps(out + quarter + i, mix_lanes(_mm512_add_ps(a_b, c_d)));
    _mm512_storeu_ps(out + 2 * quarter + i, mix_lanes(_mm512_sub_ps(ab, cd)));
    _mm512_storeu_ps(out + 3 * quarter + i, mix_lanes(_mm512_sub_ps(a_b, c_d)));
  }
}

#endif

}  // namespace

TurnedRows::TurnedRows(const FloatRows &rows)
    : rows_(rows), signs_(static_cast<size_t>((rows.width() + kTurnedWidth - 1) / kTurnedWidth * kTurnedWidth)) {
  // The sign of an index is the first bit of its product with 2^64 divided by the golden ratio.
  for (uint64_t i = 0; i < signs_.size(); ++i) signs_[i] = (i * 0x9e3779b97f4a7c15u) >> 63 ? kKeepsLength : -kKeepsLength;
}

void TurnedRows::read(int64_t index, float *out) const {
  const int64_t width = rows_.width(), padded_width = static_cast<int64_t>(signs_.size());
#ifdef MEGASBP_AVX512
  if (has_avx512()) {
    if (rows_.is_half()) return turn_avx512(rows_.half(index), width, signs_.data(), padded_width, out);
    return turn_avx512(rows_.single(index), width, signs_.data(), padded_width, out);
  }
#endif
  const float *row = rows_.row(index, out);
  if (row != out) std::copy(row, row + width, out);
  std::fill(out + width, out + padded_width, 0.0f);
  turn(out, signs_.data(), padded_width);
}

}  // namespace megasbp
