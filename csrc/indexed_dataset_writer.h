// Streaming writer of Megatron's .bin/.idx files. Memory use does not grow with the number of documents.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "indexed_dataset.h"

namespace megasbp {

// A file written through a one-MiB buffer; every failure, also that of close, is a FileError with its name.
class BufferedFile {
 public:
  BufferedFile(std::string path, int flags);
  BufferedFile(const BufferedFile &) = delete;
  BufferedFile &operator=(const BufferedFile &) = delete;
  ~BufferedFile();

  void write(const void *data, size_t bytes);
  void flush();
  // Reads back what was flushed.
  void read_at(int64_t offset, void *data, size_t bytes) const;
  // Flushes, forces the bytes to disk and closes.
  void finish();

 private:
  std::string path_;
  int descriptor_;
  std::vector<char> buffer_;
};

class IndexedDatasetWriter {
 public:
  IndexedDatasetWriter(const std::string &bin_path, const std::string &idx_path, TokenType type);

  // Appends one document. Throws std::invalid_argument when a token does not fit the type, FileError on a failed write.
  void add(const int64_t *tokens, int64_t count);

  // Appends documents i: `first`, tokens[bounds[i], bounds[i + 1]), `last`. Throws as `add` does, and before anything of
  // the batch is written.
  void add_framed(const uint32_t *tokens, const int64_t *bounds, int64_t documents, int64_t first, int64_t last);

  // Writes the index and forces both files to disk.
  void finish();

  int64_t documents() const { return documents_; }
  int64_t tokens() const { return tokens_; }

 private:
  template <typename Token>
  void append(const int64_t *tokens, int64_t count);
  template <typename Token>
  void append_framed(const uint32_t *tokens, int64_t count, int64_t first, int64_t last);

  TokenType type_;
  BufferedFile bin_;
  BufferedFile idx_;
  // Lengths wait in a file without a name until their number, which the header needs, is known.
  BufferedFile lengths_;
  std::vector<char> narrow_;
  int64_t documents_ = 0;
  int64_t tokens_ = 0;
  bool finished_ = false;
};

}  // namespace megasbp
