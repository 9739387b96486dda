// 16 numbers of a row, of single or half precision, in one AVX-512 register.
#pragma once

#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

// Of functions that are called only where has_avx512().
#define MEGASBP_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

namespace megasbp {

inline bool has_avx512() {
  static const bool found = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return found;
}

// Which of the next 16 numbers are there, if `left` are.
MEGASBP_AVX512 inline __mmask16 lanes_of(int64_t left) {
  return left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
}

// Zeros where a number is not there.
MEGASBP_AVX512 inline __m512 load(const float *row, __mmask16 there) { return _mm512_maskz_loadu_ps(there, row); }

MEGASBP_AVX512 inline __m512 load(const uint16_t *row, __mmask16 there) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(there, row));
}

}  // namespace megasbp
#endif
