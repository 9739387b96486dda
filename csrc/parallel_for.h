// Independent rows on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace megasbp {

// Calls use(row) once for each row in [0, rows), on at most `threads` threads. A thread takes the next row when it has
// finished one, so one that the machine keeps waiting does not hold up the others' rows.
// Throws what the lowest failing row threw, for any number of threads.
template <typename Use>
void parallel_for(int64_t rows, int64_t threads, const Use &use) {
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  int64_t failed = rows;
  std::exception_ptr error;
  // Rows are taken in order and a row that was taken is finished, so no row below the lowest failing one is missed.
  const auto run = [&] {
    for (int64_t row = next++; row < rows; row = next++) {
      try {
        use(row);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (row < failed) {
          failed = row;
          error = std::current_exception();
        }
        next = rows;  // No further rows.
      }
    }
  };
  std::vector<std::thread> workers;
  for (int64_t started = 1; started < std::min(threads, rows); ++started) {
    try {
      workers.emplace_back(run);
    } catch (const std::system_error &) {
      break;  // The process may start no more threads; those there are do the work.
    }
  }
  run();
  for (std::thread &worker : workers) worker.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace megasbp
