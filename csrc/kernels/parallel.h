// Ranges of independent work on OpenMP's threads: torch's own, because its library is loaded first.
#pragma once

#include <algorithm>
#include <cstdint>

namespace megasbp::kernels {

// Numbers that one range should touch at least; below it a thread costs more than it brings.
constexpr int64_t kNumbersAtOnce = 1 << 14;

inline int64_t rows_at_once(int64_t width) { return std::max<int64_t>(1, kNumbersAtOnce / std::max<int64_t>(1, width)); }

inline int64_t range_count(int64_t count, int64_t step) { return (count + step - 1) / step; }

// use(number of the range, begin, end) for ranges of `step`; where they begin does not depend on the threads.
template <typename Use>
void for_ranges(int64_t count, int64_t step, const Use &use) {
  const int64_t ranges = range_count(count, step);
#pragma omp parallel for schedule(dynamic) if (ranges > 1)
  for (int64_t range = 0; range < ranges; ++range) {
    use(range, range * step, std::min(count, (range + 1) * step));
  }
}

}  // namespace megasbp::kernels
