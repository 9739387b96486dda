// A whole file mapped read-only into memory.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <utility>

#include "file_error.h"

namespace megasbp {

class MappedFile {
 public:
  explicit MappedFile(std::string path) : path_(std::move(path)) {
    const int descriptor = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) throw FileError(errno, path_);
    struct stat status;
    int error = ::fstat(descriptor, &status) == 0 ? 0 : errno;
    if (error == 0) {
      size_ = status.st_size;
      // An empty file cannot be mapped; it has no byte to read either.
      if (size_ > 0) {
        data_ = ::mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_SHARED, descriptor, 0);
        if (data_ == MAP_FAILED) error = errno;
      }
    }
    ::close(descriptor);
    if (error != 0) throw FileError(error, path_);
  }

  MappedFile(const MappedFile &) = delete;
  MappedFile &operator=(const MappedFile &) = delete;

  ~MappedFile() {
    if (size_ > 0) ::munmap(data_, static_cast<size_t>(size_));
  }

  // Pages are read one by one: windows are drawn in random order, and read-ahead would fetch what nobody uses.
  void expect_random_access() {
    if (size_ > 0) ::madvise(data_, static_cast<size_t>(size_), MADV_RANDOM);
  }

  const char *data() const { return static_cast<const char *>(data_); }
  int64_t size() const { return size_; }
  const std::string &path() const { return path_; }

 private:
  std::string path_;
  void *data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace megasbp
