#include "indexed_dataset.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace megasbp {
namespace {

template <typename Value>
Value read_value(const char *address) {
  Value value;  // The tables start at byte 34, so their entries are not aligned.
  std::memcpy(&value, address, sizeof(Value));
  return value;
}

template <typename Token>
void widen(const char *source, int64_t count, int64_t *out) {
  const Token *tokens = reinterpret_cast<const Token *>(source);
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<int64_t>(tokens[i]);
}

TokenType parse_type(uint8_t code, const std::string &path) {
  switch (code) {
    case 1: case 2: case 3: case 4: case 5: case 8: return static_cast<TokenType>(code);
    default:
      throw std::invalid_argument(path + ": byte 17: dtype code " + std::to_string(code) +
                                  " holds no tokens (1, 2, 3, 4, 5 and 8 do); write the dataset with integers");
  }
}

}  // namespace

int64_t token_bytes(TokenType type) {
  switch (type) {
    case TokenType::kUint8: case TokenType::kInt8: return 1;
    case TokenType::kInt16: case TokenType::kUint16: return 2;
    case TokenType::kInt32: return 4;
    case TokenType::kInt64: return 8;
  }
  throw std::logic_error("token type");
}

int64_t largest_token(TokenType type) {
  switch (type) {
    case TokenType::kUint8: return std::numeric_limits<uint8_t>::max();
    case TokenType::kInt8: return std::numeric_limits<int8_t>::max();
    case TokenType::kInt16: return std::numeric_limits<int16_t>::max();
    case TokenType::kUint16: return std::numeric_limits<uint16_t>::max();
    case TokenType::kInt32: return std::numeric_limits<int32_t>::max();
    case TokenType::kInt64: return std::numeric_limits<int64_t>::max();
  }
  throw std::logic_error("token type");
}

IndexedDataset::IndexedDataset(const std::string &bin_path, const std::string &idx_path)
    : bin_(bin_path), idx_(idx_path) {
  const std::string mend = "; restore the file or write the dataset again";
  // A prefix shorter than the magic is told apart from a file of another kind: both are compared byte by byte.
  const size_t compared = std::min<size_t>(sizeof(kMagic), static_cast<size_t>(idx_.size()));
  if (idx_.size() > 0 && std::memcmp(idx_.data(), kMagic, compared) != 0) {
    throw std::invalid_argument(idx_path + ": byte 0: no MMIDIDX magic, so not a Megatron index; give the prefix of a "
                                "dataset written by megasbp or Megatron-LM");
  }
  if (idx_.size() < kHeaderBytes) {
    throw std::invalid_argument(idx_path + ": " + std::to_string(idx_.size()) + " bytes, truncated within its " +
                                std::to_string(kHeaderBytes) + "-byte header" + mend);
  }
  const uint64_t version = read_value<uint64_t>(idx_.data() + 9);
  if (version != kVersion) {
    throw std::invalid_argument(idx_path + ": byte 9: MMIDIDX version " + std::to_string(version) +
                                ", only 1 is known; write the dataset again with version 1");
  }
  type_ = parse_type(static_cast<uint8_t>(idx_.data()[17]), idx_path);
  item_ = token_bytes(type_);
  const uint64_t sequences = read_value<uint64_t>(idx_.data() + 18);
  const uint64_t bounds = read_value<uint64_t>(idx_.data() + 26);
  // Any table the file can hold has fewer entries than the file has bytes; checked first, so nothing overflows.
  const uint64_t size = static_cast<uint64_t>(idx_.size());
  const uint64_t expected = sequences < size && bounds < size ? kHeaderBytes + 12 * sequences + 8 * bounds : 0;
  if (expected == 0 || size < expected) {
    throw std::invalid_argument(idx_path + ": " + std::to_string(size) + " bytes, truncated: its header announces " +
                                std::to_string(sequences) + " sequences and " + std::to_string(bounds) +
                                " document bounds" + mend);
  }
  if (size > expected) {
    throw std::invalid_argument(idx_path + ": " + std::to_string(size) + " bytes where its header announces " +
                                std::to_string(expected) + "; multimodal indexes are not read, otherwise" +
                                mend.substr(1));
  }
  if (bounds != sequences + 1) {
    throw std::invalid_argument(idx_path + ": " + std::to_string(sequences) + " sequences in " +
                                std::to_string(static_cast<int64_t>(bounds) - 1) +
                                " documents; write one sequence per document (no --split-sentences)");
  }
  documents_ = static_cast<int64_t>(sequences);
  int64_t end = 0;
  if (documents_ > 0) {
    const int64_t length = read_value<int32_t>(lengths() + 4 * (documents_ - 1));
    const int64_t last = pointer(documents_ - 1);
    if (length < 0 || last < 0 || last > std::numeric_limits<int64_t>::max() / 2 || pointer(0) != 0) {
      damaged("its first pointer is not 0, or its last entry is negative");
    }
    end = last + length * item_;
  }
  if (bin_.size() != end) {
    throw std::invalid_argument(bin_path + ": " + std::to_string(bin_.size()) + " bytes, " +
                                (bin_.size() < end ? "shorter" : "longer") + " than the " + std::to_string(end) +
                                " bytes its index describes" + mend);
  }
  if (end % item_ != 0) damaged("its last pointer is not a multiple of the token size");
  tokens_ = end / item_;
  bin_.expect_random_access();
}

void IndexedDataset::damaged(const std::string &what) const {
  throw std::invalid_argument(idx_.path() + ": damaged index, " + what + "; restore the file or write it again");
}

int64_t IndexedDataset::pointer(int64_t document) const {
  return read_value<int64_t>(lengths() + 4 * documents_ + 8 * document);
}

int64_t IndexedDataset::document_start(int64_t document) const {
  if (document < 0 || document >= documents_) {
    throw std::out_of_range("document " + std::to_string(document) + " of " + std::to_string(documents_));
  }
  const int64_t start = pointer(document);
  if (start < 0 || start > bin_.size() || start % item_ != 0) {
    damaged("pointer " + std::to_string(document) + " is " + std::to_string(start));
  }
  return start / item_;
}

int64_t IndexedDataset::document_length(int64_t document) const {
  const int64_t start = document_start(document);
  const int64_t length = read_value<int32_t>(lengths() + 4 * document);
  if (length < 0 || length > tokens_ - start) {
    damaged("length " + std::to_string(document) + " is " + std::to_string(length));
  }
  return length;
}

int64_t IndexedDataset::document_at(int64_t token) const {
  if (token < 0 || token >= tokens_) {
    throw std::out_of_range("token " + std::to_string(token) + " of " + std::to_string(tokens_));
  }
  // The last document that starts at or before the token. Empty documents share their start with the next one,
  // so the last of equals is the one with tokens.
  int64_t low = 0;
  int64_t high = documents_;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (document_start(middle) <= token ? low : high) = middle;
  }
  const int64_t start = document_start(low);
  if (token < start || token >= start + document_length(low)) {
    damaged("no document holds token " + std::to_string(token));
  }
  return low;
}

const char *IndexedDataset::address(int64_t start, int64_t count) const {
  if (start < 0 || count < 0 || start > tokens_ || count > tokens_ - start) {
    throw std::out_of_range("tokens " + std::to_string(start) + " to " + std::to_string(start + count) + " of " +
                            std::to_string(tokens_));
  }
  return bin_.data() + start * item_;
}

void IndexedDataset::copy(int64_t start, int64_t count, int64_t *out) const {
  const char *source = address(start, count);
  switch (type_) {
    case TokenType::kUint8: return widen<uint8_t>(source, count, out);
    case TokenType::kInt8: return widen<int8_t>(source, count, out);
    case TokenType::kInt16: return widen<int16_t>(source, count, out);
    case TokenType::kUint16: return widen<uint16_t>(source, count, out);
    case TokenType::kInt32: return widen<int32_t>(source, count, out);
    case TokenType::kInt64: return widen<int64_t>(source, count, out);
  }
}

void IndexedDataset::verify() const {
  int64_t end = 0;
  const char *bounds = lengths() + 12 * documents_;
  for (int64_t document = 0; document < documents_; ++document) {
    if (document_start(document) != end) {
      damaged("document " + std::to_string(document) + " does not start where the one before it ends");
    }
    end += document_length(document);
    if (read_value<int64_t>(bounds + 8 * document) != document) {
      damaged("document bound " + std::to_string(document) + " is not one sequence per document");
    }
  }
  if (read_value<int64_t>(bounds + 8 * documents_) != documents_) damaged("its last document bound is wrong");
}

}  // namespace megasbp
