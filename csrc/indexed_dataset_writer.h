// Streaming writer of Megatron's .bin/.idx files. Memory use does not grow with the number of documents.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "indexed_dataset.h"

namespace megasbp {

// Is told how many bytes of a file are written, each time that some are.
using Follower = std::function<void(int64_t)>;

// A file written through a one-MiB buffer; every failure, also that of close, is a FileError with its name.
class BufferedFile {
 public:
  BufferedFile(std::string path, int flags, Follower follower = nullptr);
  BufferedFile(const BufferedFile &) = delete;
  BufferedFile &operator=(const BufferedFile &) = delete;
  ~BufferedFile();

  void write(const void *data, size_t bytes);
  void flush();
  // Reads back what was flushed.
  void read_at(int64_t offset, void *data, size_t bytes) const;
  // Flushes and closes.
  void finish();

 private:
  std::string path_;
  int descriptor_;
  std::vector<char> buffer_;
  int64_t written_ = 0;
  Follower follower_;
};

class IndexedDatasetWriter {
 public:
  // The followers may be null; they are called by whoever calls the writer.
  IndexedDatasetWriter(const std::string &bin_path, const std::string &idx_path, TokenType type, Follower bin_follower,
                       Follower idx_follower);

  // Appends one document of `sequences` sequences, or as many documents of one sequence each; `lengths` are theirs, in
  // tokens. Throws std::invalid_argument when a token does not fit the type or the lengths do not add up to `count`,
  // and then appends nothing; FileError on a failed write.
  void add_document(const int64_t *tokens, int64_t count, const int64_t *lengths, int64_t sequences);
  void add_documents(const int64_t *tokens, int64_t count, const int64_t *lengths, int64_t sequences);

  // Appends documents i: `first`, tokens[bounds[i], bounds[i + 1]), `last`. Throws as `add_documents` does.
  void add_framed(const uint32_t *tokens, const int64_t *bounds, int64_t documents, int64_t first, int64_t last);

  // Appends documents of another dataset, each as one sequence. Throws std::invalid_argument when its tokens are of
  // another type, and what `IndexedDataset::document` throws; the documents before stay appended.
  void add_copies(const IndexedDataset &source, const int64_t *documents, int64_t count);

  // Writes the index. The bytes may still have to reach the disk.
  void finish();

  int64_t documents() const { return documents_; }
  int64_t sequences() const { return sequences_; }
  // True while each document is one sequence.
  bool single() const { return !bounds_; }
  int64_t tokens() const { return tokens_; }

 private:
  // `unit` and `first` name the sequences in errors.
  void check(const int64_t *tokens, int64_t count, const int64_t *lengths, int64_t sequences, const char *unit,
             int64_t first) const;
  void append(const int64_t *tokens, int64_t count, const int64_t *lengths, int64_t sequences);
  // Of integers that are known to fit.
  template <typename Token>
  void append_narrowed(const int64_t *tokens, int64_t count);
  template <typename Token>
  void append_framed(Token first, Token last, const uint32_t *tokens, const int64_t *bounds, int64_t documents);
  void append_length(int64_t length);
  void refuse_framed(const uint32_t *tokens, const int64_t *bounds, int64_t documents, int64_t first, int64_t last);

  TokenType type_;
  BufferedFile bin_;
  BufferedFile idx_;
  // Lengths wait in a file without a name until their number, which the header needs, is known. So do the documents'
  // bounds from the first one on that is not a single sequence; before it they are 0, 1, 2, ...
  std::string idx_path_;
  BufferedFile lengths_;
  std::unique_ptr<BufferedFile> bounds_;
  int64_t single_ = 0;
  int64_t documents_ = 0;
  int64_t sequences_ = 0;
  int64_t tokens_ = 0;
  bool finished_ = false;
};

}  // namespace megasbp
