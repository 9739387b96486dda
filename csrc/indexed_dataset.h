// Reader of Megatron's .bin/.idx files (MMIDIDX version 1): one sequence per document, tokens one after another.
//
// .idx, little-endian, without padding: magic "MMIDIDX\0\0", uint64 version, uint8 dtype code, uint64 sequences,
// uint64 document bounds, int32 lengths[sequences] (tokens), int64 pointers[sequences] (bytes into .bin),
// int64 bounds[documents + 1] (sequences).
#pragma once

#include <cstdint>
#include <string>

#include "mapped_file.h"

namespace megasbp {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the files are little-endian and read in place");

constexpr char kMagic[] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};
constexpr uint64_t kVersion = 1;
constexpr int64_t kHeaderBytes = 34;

// Integer types of Megatron's table; its codes 6 and 7 are floating point and hold no tokens.
enum class TokenType : uint8_t { kUint8 = 1, kInt8 = 2, kInt16 = 3, kInt32 = 4, kInt64 = 5, kUint16 = 8 };

int64_t token_bytes(TokenType type);
int64_t largest_token(TokenType type);

class IndexedDataset {
 public:
  // O(1): reads the header and the last entries, and compares sizes.
  // Throws FileError when a file cannot be opened, std::invalid_argument when it is not what its header says.
  IndexedDataset(const std::string &bin_path, const std::string &idx_path);

  int64_t documents() const { return documents_; }
  int64_t tokens() const { return tokens_; }
  TokenType type() const { return type_; }

  // First token of a document in the stream, and its length. Throws std::out_of_range outside [0, documents) and
  // std::invalid_argument when the index points outside .bin.
  int64_t document_start(int64_t document) const;
  int64_t document_length(int64_t document) const;

  // The document that holds a token of the stream, by binary search over the pointers: O(log documents).
  int64_t document_at(int64_t token) const;

  // Widens tokens [start, start + count) of the stream into `out`. Throws std::out_of_range.
  void copy(int64_t start, int64_t count, int64_t *out) const;

  // Address of a token, checked to be followed by `count` tokens.
  const char *address(int64_t start, int64_t count) const;

  // The length table: int32 [documents], not aligned.
  const char *lengths() const { return idx_.data() + kHeaderBytes; }

  // Reads the whole index: lengths, pointers that follow each other without gaps, one sequence per document.
  void verify() const;

  [[noreturn]] void damaged(const std::string &what) const;

 private:
  int64_t pointer(int64_t document) const;

  MappedFile bin_;
  MappedFile idx_;
  TokenType type_;
  int64_t documents_ = 0;
  int64_t tokens_ = 0;
  int64_t item_ = 0;
};

}  // namespace megasbp
