// A failed system call on a named file. It arrives in Python as OSError with errno and filename.
#pragma once

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace megasbp {

class FileError : public std::runtime_error {
 public:
  FileError(int code, std::string path)
      : std::runtime_error(path + ": " + std::strerror(code)), code_(code), path_(std::move(path)) {}

  int code() const { return code_; }
  const std::string &path() const { return path_; }

 private:
  int code_;
  std::string path_;
};

}  // namespace megasbp
