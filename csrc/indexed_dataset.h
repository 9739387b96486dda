// Reader of Megatron's .bin/.idx files (MMIDIDX version 1): tokens one after another, documents of any number of
// sequences; a document is its sequences joined.
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

// Megatron's table of types and their codes.
enum class TokenType : uint8_t {
  kUint8 = 1,
  kInt8 = 2,
  kInt16 = 3,
  kInt32 = 4,
  kInt64 = 5,
  kFloat64 = 6,
  kFloat32 = 7,
  kUint16 = 8,
};

int64_t token_bytes(TokenType type);
// Of a floating-point type: the largest integer up to which it holds every one.
int64_t largest_token(TokenType type);

// Consecutive tokens of the stream.
struct Span {
  int64_t start;
  int64_t count;

  int64_t end() const { return start + count; }
};

class IndexedDataset {
 public:
  // O(1): reads the header and the last entries, and compares sizes. `single`: each document is known to be one
  // sequence, and an access that finds another bound is refused.
  // Throws FileError when a file cannot be opened, std::invalid_argument when it is not what its header says.
  IndexedDataset(const std::string &bin_path, const std::string &idx_path, bool single);

  int64_t documents() const { return documents_; }
  int64_t sequences() const { return sequences_; }
  bool single() const { return single_; }
  int64_t tokens() const { return tokens_; }
  TokenType type() const { return type_; }

  // Tokens of a document, all its sequences together. Throws std::out_of_range outside [0, documents) and
  // std::invalid_argument when the index is damaged there: every entry used is checked to lie inside .bin and to end
  // where the next one begins.
  Span document(int64_t document) const;

  // The document that holds a token of the stream, by a search over the pointers: O(log sequences).
  int64_t document_at(int64_t token) const;

  // Converts tokens [start, start + count) of the stream into `out`, int32_t or int64_t. Throws std::out_of_range, and
  // std::invalid_argument for a floating-point value that is no token, or one that int32_t does not hold.
  template <typename Out>
  void copy(int64_t start, int64_t count, Out *out) const;

  // Address of a token, checked to be followed by `count` tokens.
  const char *address(int64_t start, int64_t count) const;

  // The table of sequence lengths: int32 [sequences], not aligned.
  const char *lengths() const { return idx_.data() + kHeaderBytes; }

  // Tokens of each document, int32 [documents]; reads the whole index.
  void document_lengths(int32_t *out) const;

  // Reads the whole index: lengths, pointers that follow each other without gaps, document bounds that ascend.
  // True when every document is one sequence, so that `lengths` are the documents'.
  bool verify() const;

  [[noreturn]] void damaged(const std::string &what) const;

 private:
  int64_t pointer(int64_t sequence) const;
  int64_t bound(int64_t document) const;
  Span sequence(int64_t sequence) const;

  MappedFile bin_;
  MappedFile idx_;
  bool single_;
  TokenType type_;
  int64_t documents_ = 0;
  int64_t sequences_ = 0;
  int64_t tokens_ = 0;
  int64_t item_ = 0;
};

}  // namespace megasbp
