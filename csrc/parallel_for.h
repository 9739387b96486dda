// Independent rows on several threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace megasbp {

// Calls use(row) once for each row in [0, rows), on at most `threads` threads, each with a contiguous share.
// Throws what the lowest failing row threw, for any number of threads.
template <typename Use>
void parallel_for(int64_t rows, int64_t threads, const Use &use) {
  threads = std::max<int64_t>(1, std::min(threads, rows));
  std::vector<std::exception_ptr> errors(static_cast<size_t>(threads));
  const auto run = [&](int64_t share) {
    try {
      for (int64_t row = rows * share / threads; row < rows * (share + 1) / threads; ++row) use(row);
    } catch (...) {
      errors[static_cast<size_t>(share)] = std::current_exception();
    }
  };
  std::vector<std::thread> workers;
  for (int64_t share = 1; share < threads; ++share) {
    try {
      workers.emplace_back(run, share);
    } catch (const std::system_error &) {
      run(share);  // The process may start no more threads; the work is done here instead.
    }
  }
  run(0);
  for (std::thread &worker : workers) worker.join();
  for (const std::exception_ptr &error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace megasbp
