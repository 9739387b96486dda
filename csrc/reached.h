// Which of 64 bounds reach a limit.
#pragma once

#include <cstdint>

#include "wide_vectors.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace megasbp {

constexpr int64_t kBoundsAtOnce = 64;

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx512f"))) inline uint64_t reached_avx512(const float *bounds, float limit,
                                                                  const float *row_limit) {
  uint64_t bits = 0;
  for (int64_t i = 0; i < kBoundsAtOnce; i += 16) {
    const __m512 lower = _mm512_min_ps(_mm512_loadu_ps(row_limit + i), _mm512_set1_ps(limit));
    bits |= static_cast<uint64_t>(_mm512_cmp_ps_mask(_mm512_loadu_ps(bounds + i), lower, _CMP_GE_OQ)) << i;
  }
  return bits;
}
#endif

// A bit for each of 64 bounds: whether it reaches `limit` or the limit of its row.
inline uint64_t reached(const float *bounds, float limit, const float *row_limit) {
#if defined(__x86_64__) && defined(__GNUC__)
  static const bool avx512 = __builtin_cpu_supports("avx512f");
  if (avx512) return reached_avx512(bounds, limit, row_limit);
#endif
  uint64_t bits = 0;
  for (int64_t i = 0; i < kBoundsAtOnce; ++i) {
    const float lower = row_limit[i] < limit ? row_limit[i] : limit;
    bits |= static_cast<uint64_t>(bounds[i] >= lower) << i;
  }
  return bits;
}

}  // namespace megasbp
