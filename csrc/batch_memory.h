// Memory of batches, used again.
//
// Fresh memory of a batch's size comes from the kernel page by page, and goes back when it is freed; both together take
// several times longer than filling the batch. So the last few blocks wait here for the next batch of their size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <memory>
#include <mutex>
#include <utility>

namespace megasbp {

class BatchMemory {
 public:
  // A block of int32, not initialised; it comes back here when the last owner lets it go.
  static std::shared_ptr<int32_t> take(size_t count) {
    // The block freed last is the likeliest to be in a cache.
    BatchMemory &memory = shared();
    std::unique_ptr<int32_t[]> block;
    {
      const std::lock_guard<std::mutex> lock(memory.mutex_);
      for (auto free = memory.free_.rbegin(); free != memory.free_.rend(); ++free) {
        if (free->first != count) continue;
        block = std::move(free->second);
        memory.free_.erase(std::next(free).base());
        break;
      }
    }
    if (!block) block.reset(new int32_t[count]);
    return std::shared_ptr<int32_t>(block.release(), [count](int32_t *address) { shared().keep(count, address); });
  }

 private:
  // One that is read, and those that a loader prepares ahead.
  static constexpr size_t kMostFree = 4;

  static BatchMemory &shared() {
    static BatchMemory &memory = *new BatchMemory;  // Never destroyed: arrays may outlive the module.
    return memory;
  }

  void keep(size_t count, int32_t *address) {
    std::unique_ptr<int32_t[]> block(address);
    std::pair<size_t, std::unique_ptr<int32_t[]>> oldest;  // Freed after the lock.
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.emplace_back(count, std::move(block));
    if (free_.size() <= kMostFree) return;
    oldest = std::move(free_.front());
    free_.pop_front();
  }

  std::mutex mutex_;
  std::deque<std::pair<size_t, std::unique_ptr<int32_t[]>>> free_;
};

}  // namespace megasbp
