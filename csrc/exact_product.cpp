#include "exact_product.h"

#include <algorithm>
#include <cmath>

#include "float_lanes.h"
#include "wide_vectors.h"

namespace megasbp {
namespace {

constexpr int64_t kLanes = 16;

double sum_of(double *lanes) {
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

MEGASBP_WIDE_VECTORS
double product(const double *query, const float *row, int64_t width) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += query[i + lane] * static_cast<double>(row[i + lane]);
  }
  for (int64_t lane = 0; i + lane < width; ++lane) lanes[lane] += query[i + lane] * static_cast<double>(row[i + lane]);
  return sum_of(lanes);
}

#ifdef MEGASBP_AVX512

template <typename Number>
MEGASBP_AVX512 float single_product(const float *query, const Number *row, int64_t width) {
  // Several sums, which need not wait for each other.
  constexpr int64_t kSums = 4;
  __m512 sums[kSums] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  int64_t i = 0;
  for (; i + kSums * kLanes <= width; i += kSums * kLanes) {
#pragma GCC unroll 4
    for (int64_t sum = 0; sum < kSums; ++sum)
      sums[sum] = _mm512_fmadd_ps(_mm512_loadu_ps(query + i + sum * kLanes), load(row + i + sum * kLanes, 0xffff), sums[sum]);
  }
  for (; i < width; i += kLanes)
    sums[0] = _mm512_fmadd_ps(_mm512_loadu_ps(query + i), load(row + i, lanes_of(width - i)), sums[0]);
  return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
}

template <typename Number>
MEGASBP_AVX512 double product_avx512(const double *query, const Number *row, int64_t width) {
  __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
  for (int64_t i = 0; i < width; i += kLanes) {
    const __m512 numbers = load(row + i, lanes_of(width - i));
    low = _mm512_fmadd_pd(_mm512_loadu_pd(query + i), _mm512_cvtps_pd(_mm512_castps512_ps256(numbers)), low);
    high = _mm512_fmadd_pd(_mm512_loadu_pd(query + i + 8), _mm512_cvtps_pd(_mm512_extractf32x8_ps(numbers, 1)), high);
  }
  double lanes[kLanes];
  _mm512_storeu_pd(lanes, low);
  _mm512_storeu_pd(lanes + 8, high);
  return sum_of(lanes);
}

#endif

}  // namespace

ExactProduct::ExactProduct(int64_t width, const FloatRows &rows)
    : rows_(rows), query_(static_cast<size_t>((width + kLanes - 1) / kLanes * kLanes)),
      query_single_(query_.size()), space_(static_cast<size_t>(width)) {}

void ExactProduct::prefetch(int64_t row) const {
  constexpr int64_t kLine = 64;
  const char *start = rows_.start(row);
  for (int64_t byte = 0; byte < rows_.width() * rows_.size(); byte += kLine) __builtin_prefetch(start + byte);
}

void ExactProduct::take(const FloatRows &queries, int64_t query) {
  const float *numbers = queries.row(query, space_.data());
  std::copy(numbers, numbers + queries.width(), query_.begin());
  std::copy(numbers, numbers + queries.width(), query_single_.begin());
}

bool ExactProduct::below([[maybe_unused]] int64_t row, [[maybe_unused]] float limit,
                         [[maybe_unused]] float lengths) const {
#ifdef MEGASBP_AVX512
  if (has_avx512()) {
    const int64_t width = rows_.width();
    const float product = rows_.is_half() ? single_product(query_single_.data(), rows_.half(row), width)
                                          : single_product(query_single_.data(), rows_.single(row), width);
    // A float sum of n products is wrong by n * 2^-24 of the lengths at most, nearly; the rest is the grid's.
    const float error = static_cast<float>(width) * lengths / (1 << 23) + static_cast<float>(1 / kGrid);
    return product + error < limit;
  }
#endif
  return false;
}

double ExactProduct::with(int64_t row) {
  const int64_t width = rows_.width();
#ifdef MEGASBP_AVX512
  if (has_avx512()) {
    const double exact = rows_.is_half() ? product_avx512(query_.data(), rows_.half(row), width)
                                         : product_avx512(query_.data(), rows_.single(row), width);
    return std::nearbyint(exact * kGrid) / kGrid;
  }
#endif
  return std::nearbyint(product(query_.data(), rows_.row(row, space_.data()), width) * kGrid) / kGrid;
}

}  // namespace megasbp
