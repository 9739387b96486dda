// A register's numbers at a time in compiler vectors, and the bfloat16 that they are loaded from and rounded to. A last
// part of fewer numbers goes through the same arithmetic, so an element's bits do not depend on where it stands.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>

#define MEGASBP_INLINE static inline __attribute__((always_inline))

namespace megasbp::kernels {

// No wider than a register: GCC keeps wider vectors in memory, which made attention eight times slower on AVX2. On x86
// that is AVX2's (CMakeLists.txt), elsewhere 128 bits.
#if defined(__AVX2__)
constexpr int64_t kLanes = 8;
#else
constexpr int64_t kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));

struct BFloat16 {
  uint16_t bits;
};

template <typename To, typename From>
MEGASBP_INLINE To bits_as(const From &from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

MEGASBP_INLINE Floats all(float value) { return value - Floats{}; }

MEGASBP_INLINE Floats from_halves(Halves halves) { return bits_as<Floats>(__builtin_convertvector(halves, Words) << 16); }

// Rounds to the nearest, ties to even; every NaN becomes the same one.
MEGASBP_INLINE Halves to_halves(Floats values) {
  const Words words = bits_as<Words>(values);
  const Words rounded = (words + 0x7FFF + ((words >> 16) & 1)) >> 16;
  const Words nan = Words{} + 0x7FC0;
  return __builtin_convertvector(values == values ? rounded : nan, Halves);
}

MEGASBP_INLINE Floats load(const float *from) {
  Floats values;
  std::memcpy(&values, from, sizeof values);
  return values;
}
MEGASBP_INLINE Floats load(const BFloat16 *from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  return from_halves(halves);
}
MEGASBP_INLINE void store(float *to, Floats values) { std::memcpy(to, &values, sizeof values); }
MEGASBP_INLINE void store(BFloat16 *to, Floats values) {
  const Halves halves = to_halves(values);
  std::memcpy(to, &halves, sizeof halves);
}

// The first `count` of a vector; the others are zero or `rest`, and are not stored.
template <typename T>
MEGASBP_INLINE Floats load(const T *from, int64_t count) {
  if (count >= kLanes) return load(from);
  T part[kLanes] = {};
  std::memcpy(part, from, count * sizeof(T));
  return load(part);
}
MEGASBP_INLINE Floats load(const float *from, int64_t count, float rest) {
  if (count >= kLanes) return load(from);
  float part[kLanes];
  store(part, all(rest));
  std::memcpy(part, from, count * sizeof(float));
  return load(part);
}
template <typename T>
MEGASBP_INLINE void store(T *to, Floats values, int64_t count) {
  if (count >= kLanes) return store(to, values);
  T part[kLanes];
  store(part, values);
  std::memcpy(to, part, count * sizeof(T));
}

// Zeros on whole cache lines: a vector across two of them costs twice.
struct FreeFloats {
  void operator()(float *numbers) const { ::operator delete[](numbers, std::align_val_t(sizeof(Floats))); }
};
using AlignedFloats = std::unique_ptr<float[], FreeFloats>;
inline AlignedFloats aligned_floats(int64_t size) {
  return AlignedFloats(new (std::align_val_t(sizeof(Floats))) float[size]());
}

MEGASBP_INLINE float sum(Floats values) {
  float part[kLanes];
  store(part, values);
  for (int64_t step = kLanes / 2; step > 0; step /= 2) {
    for (int64_t lane = 0; lane < step; ++lane) part[lane] += part[lane + step];
  }
  return part[0];
}

MEGASBP_INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }

MEGASBP_INLINE float largest(Floats values) {
  float part[kLanes];
  store(part, values);
  float found = part[0];
  for (int64_t lane = 1; lane < kLanes; ++lane) found = part[lane] > found ? part[lane] : found;
  return found;
}

MEGASBP_INLINE float largest_of(int64_t size, const float *numbers) {
  const float least = -__builtin_inff();
  Floats found = all(least);
  for (int64_t i = 0; i < size; i += kLanes) found = larger(found, load(numbers + i, size - i, least));
  return largest(found);
}

// e^x to about one unit in the last place; infinity and zero at the ends, NaN stays NaN.
MEGASBP_INLINE Floats exponential(Floats x) {
  constexpr float kRounding = 12582912.0f;  // 1.5 * 2^23: adding it leaves a whole number in the low bits.
  x = x > 150.0f ? all(150.0f) : x;
  x = x < -150.0f ? all(-150.0f) : x;
  const Floats shifted = x * 1.44269504088896341f + kRounding, whole = shifted - kRounding;
  // ln 2 in two parts, of which the first has few bits: its multiples are exact.
  const Floats rest = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
  // Taylor's polynomial; on |rest| <= ln(2) / 2 its first missing term is below 2^-27.
  Floats value = all(1.0f / 5040);
  for (const float coefficient : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f, 1.0f}) {
    value = value * rest + coefficient;
  }
  // 2^whole as two factors, since one need not be a normal number.
  const Ints power = bits_as<Ints>(shifted) - bits_as<int32_t>(kRounding), half = power >> 1;
  return value * bits_as<Floats>((half + 127) << 23) * bits_as<Floats>((power - half + 127) << 23);
}

}  // namespace megasbp::kernels
