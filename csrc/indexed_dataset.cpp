#include "indexed_dataset.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <type_traits>

namespace megasbp {
namespace {

template <typename Value>
Value read_value(const char *address) {
  Value value;  // The tables start at byte 34, so their entries are not aligned.
  std::memcpy(&value, address, sizeof(Value));
  return value;
}

// Converts until a value that is no token, or that `Out` does not hold; returns how many were.
template <typename Token, typename Out>
int64_t convert(const char *source, int64_t count, int64_t largest, Out *out) {
  const Token *tokens = reinterpret_cast<const Token *>(source);
  for (int64_t i = 0; i < count; ++i) {
    // The cast of NaN, or of what int64 does not hold, is undefined.
    if constexpr (std::is_floating_point_v<Token>) {
      if (!(tokens[i] >= 0 && tokens[i] <= static_cast<Token>(largest) && tokens[i] == std::floor(tokens[i]))) return i;
    } else if constexpr (sizeof(Token) > sizeof(Out)) {
      if (tokens[i] < 0 || tokens[i] > largest) return i;
    }
    out[i] = static_cast<Out>(tokens[i]);
  }
  return count;
}

TokenType parse_type(uint8_t code, const std::string &path) {
  if (code >= 1 && code <= 8) return static_cast<TokenType>(code);
  throw std::invalid_argument(path + ": byte 17: dtype code " + std::to_string(code) +
                              ", must be in 1..8; restore the file or write the dataset again");
}

// The last i of [0, count) with read(i) <= value, in a table that ascends to `end`; in a damaged one any i.
//
// Documents are of much the same length everywhere, so the place follows from the proportion to within some thousand
// entries. Bisection from the whole table would touch two dozen pages, each a read where the index is not in memory.
template <typename Read>
int64_t last_at_most(int64_t count, int64_t value, int64_t end, const Read &read) {
  int64_t low = 0;
  int64_t high = count;
  const double proportion = end > 0 ? static_cast<double>(value) / static_cast<double>(end) : 0;
  int64_t probe = std::clamp<int64_t>(static_cast<int64_t>(proportion * static_cast<double>(count)), 0, count - 1);
  for (int64_t step = 256; probe > low && probe < high; step *= 2) {
    if (read(probe) <= value) {
      low = probe;
      probe += step;
    } else {
      high = probe;
      probe -= step;
    }
  }
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (read(middle) <= value ? low : high) = middle;
  }
  return low;
}

}  // namespace

int64_t token_bytes(TokenType type) {
  switch (type) {
    case TokenType::kUint8: case TokenType::kInt8: return 1;
    case TokenType::kInt16: case TokenType::kUint16: return 2;
    case TokenType::kInt32: return 4;
    case TokenType::kInt64: return 8;
    case TokenType::kFloat32: return 4;
    case TokenType::kFloat64: return 8;
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
    case TokenType::kFloat32: return int64_t{1} << std::numeric_limits<float>::digits;
    case TokenType::kFloat64: return int64_t{1} << std::numeric_limits<double>::digits;
  }
  throw std::logic_error("token type");
}

IndexedDataset::IndexedDataset(const std::string &bin_path, const std::string &idx_path, bool single)
    : bin_(bin_path), idx_(idx_path), single_(single) {
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
  if (bounds < 1) {
    throw std::invalid_argument(idx_path + ": byte 26: no document bounds, at least 1 is needed" + mend);
  }
  sequences_ = static_cast<int64_t>(sequences);
  documents_ = static_cast<int64_t>(bounds) - 1;
  if (bound(0) != 0 || bound(documents_) != sequences_) {
    damaged("its document bounds go from " + std::to_string(bound(0)) + " to " + std::to_string(bound(documents_)) +
            ", its sequences from 0 to " + std::to_string(sequences_));
  }
  int64_t end = 0;
  if (sequences_ > 0) {
    const int64_t length = read_value<int32_t>(lengths() + 4 * (sequences_ - 1));
    const int64_t last = pointer(sequences_ - 1);
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

int64_t IndexedDataset::pointer(int64_t sequence) const {
  return read_value<int64_t>(lengths() + 4 * sequences_ + 8 * sequence);
}

int64_t IndexedDataset::bound(int64_t document) const {
  return read_value<int64_t>(lengths() + 12 * sequences_ + 8 * document);
}

Span IndexedDataset::sequence(int64_t sequence) const {
  const int64_t start = pointer(sequence);
  if (start < 0 || start > bin_.size() || start % item_ != 0) {
    damaged("pointer " + std::to_string(sequence) + " is " + std::to_string(start));
  }
  const Span span{start / item_, read_value<int32_t>(lengths() + 4 * sequence)};
  if (span.count < 0 || span.count > tokens_ - span.start) {
    damaged("length " + std::to_string(sequence) + " is " + std::to_string(span.count));
  }
  if (span.end() * item_ != (sequence + 1 < sequences_ ? pointer(sequence + 1) : bin_.size())) {
    damaged("sequence " + std::to_string(sequence) + " does not end where the next one begins");
  }
  return span;
}

Span IndexedDataset::document(int64_t document) const {
  if (document < 0 || document >= documents_) {
    throw std::out_of_range("document " + std::to_string(document) + " of " + std::to_string(documents_));
  }
  const int64_t first = bound(document);
  const int64_t last = bound(document + 1);
  const bool expected = !single_ || (first == document && last == document + 1);
  if (first < 0 || last < first || last > sequences_ || !expected) {
    damaged("document bounds " + std::to_string(document) + " and " + std::to_string(document + 1) + " are " +
            std::to_string(first) + " and " + std::to_string(last));
  }
  // A document may have no sequence at all; it lies where the next sequence begins.
  if (first == last) return {first < sequences_ ? sequence(first).start : tokens_, 0};
  Span span = sequence(first);
  for (int64_t part = first + 1; part < last; ++part) span.count += sequence(part).count;
  return span;
}

int64_t IndexedDataset::document_at(int64_t token) const {
  if (token < 0 || token >= tokens_) {
    throw std::out_of_range("token " + std::to_string(token) + " of " + std::to_string(tokens_));
  }
  // Empty sequences share their start with the next one, so the last of equals is the one with tokens.
  const int64_t found = last_at_most(sequences_, token * item_, bin_.size(), [&](int64_t i) { return pointer(i); });
  const auto holds = [&](int64_t document) { return bound(document) <= found && found < bound(document + 1); };
  int64_t document = found;  // Right at once where each document is one sequence.
  if (found >= documents_ || !holds(found)) {
    document = last_at_most(documents_, found, sequences_, [&](int64_t i) { return bound(i); });
  }
  const Span span = sequence(found);
  if (token < span.start || token >= span.end() || !holds(document)) {
    damaged("no document holds token " + std::to_string(token));
  }
  return document;
}

const char *IndexedDataset::address(int64_t start, int64_t count) const {
  if (start < 0 || count < 0 || start > tokens_ || count > tokens_ - start) {
    throw std::out_of_range("tokens " + std::to_string(start) + " to " + std::to_string(start + count) + " of " +
                            std::to_string(tokens_));
  }
  return bin_.data() + start * item_;
}

template <typename Out>
void IndexedDataset::copy(int64_t start, int64_t count, Out *out) const {
  const char *source = address(start, count);
  const int64_t largest = std::min<int64_t>(largest_token(type_), std::numeric_limits<Out>::max());
  int64_t copied = 0;
  switch (type_) {
    case TokenType::kUint8: copied = convert<uint8_t>(source, count, largest, out); break;
    case TokenType::kInt8: copied = convert<int8_t>(source, count, largest, out); break;
    case TokenType::kInt16: copied = convert<int16_t>(source, count, largest, out); break;
    case TokenType::kUint16: copied = convert<uint16_t>(source, count, largest, out); break;
    case TokenType::kInt32: copied = convert<int32_t>(source, count, largest, out); break;
    case TokenType::kInt64: copied = convert<int64_t>(source, count, largest, out); break;
    case TokenType::kFloat32: copied = convert<float>(source, count, largest, out); break;
    case TokenType::kFloat64: copied = convert<double>(source, count, largest, out); break;
  }
  if (copied < count) {
    throw std::invalid_argument(bin_.path() + ": token " + std::to_string(start + copied) + " is not an integer in 0.." +
                                std::to_string(largest) + "; restore the file or write the dataset again");
  }
}

template void IndexedDataset::copy(int64_t start, int64_t count, int32_t *out) const;
template void IndexedDataset::copy(int64_t start, int64_t count, int64_t *out) const;

void IndexedDataset::document_lengths(int32_t *out) const {
  for (int64_t i = 0; i < documents_; ++i) {
    const int64_t count = document(i).count;
    if (count > std::numeric_limits<int32_t>::max()) {
      throw std::invalid_argument(idx_.path() + ": document " + std::to_string(i) + " has " + std::to_string(count) +
                                  " tokens, at most 2147483647; cut it");
    }
    out[i] = static_cast<int32_t>(count);
  }
}

bool IndexedDataset::verify() const {
  // The first pointer was found to be 0 at opening, so sequences that meet cover .bin without gap or overlap.
  for (int64_t i = 0; i < sequences_; ++i) sequence(i);
  bool single = documents_ == sequences_;
  for (int64_t i = 0; i < documents_; ++i) {
    if (bound(i + 1) < bound(i)) damaged("document bound " + std::to_string(i + 1) + " is below the one before it");
    single = single && bound(i + 1) == i + 1;
  }
  return single;
}

}  // namespace megasbp
