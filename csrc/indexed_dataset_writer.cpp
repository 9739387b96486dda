#include "indexed_dataset_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>

namespace megasbp {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;
// Entries of the index that are made at once.
constexpr int64_t kBlock = 1 << 16;
// Tokens that are converted at once; they stay in the innermost cache.
constexpr int64_t kTokensAtOnce = 2048;

// Calls `use` with a zero of the type in which tokens are stored.
template <typename Use>
void with_token_type(TokenType type, const Use &use) {
  switch (type) {
    case TokenType::kUint8: return use(uint8_t{});
    case TokenType::kInt8: return use(int8_t{});
    case TokenType::kInt16: return use(int16_t{});
    case TokenType::kUint16: return use(uint16_t{});
    case TokenType::kInt32: return use(int32_t{});
    case TokenType::kInt64: return use(int64_t{});
    case TokenType::kFloat32: return use(float{});
    case TokenType::kFloat64: return use(double{});
  }
}

}  // namespace

BufferedFile::BufferedFile(std::string path, int flags, Follower follower)
    : path_(std::move(path)), follower_(std::move(follower)) {
  descriptor_ = ::open(path_.c_str(), flags | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw FileError(errno, path_);
  buffer_.reserve(kBufferBytes);
}

BufferedFile::~BufferedFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void BufferedFile::write(const void *data, size_t bytes) {
  const char *next = static_cast<const char *>(data);
  while (bytes > 0) {
    const size_t count = std::min(bytes, kBufferBytes - buffer_.size());
    buffer_.insert(buffer_.end(), next, next + count);
    next += count;
    bytes -= count;
    if (buffer_.size() == kBufferBytes) flush();
  }
}

void BufferedFile::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t written = ::write(descriptor_, buffer_.data() + done, buffer_.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw FileError(errno, path_);
    done += static_cast<size_t>(written);
  }
  buffer_.clear();
  written_ += static_cast<int64_t>(done);
  if (follower_ && done > 0) follower_(written_);
}

void BufferedFile::read_at(int64_t offset, void *data, size_t bytes) const {
  char *next = static_cast<char *>(data);
  while (bytes > 0) {
    const ssize_t count = ::pread(descriptor_, next, bytes, offset);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw FileError(count < 0 ? errno : EIO, path_);
    next += count;
    offset += count;
    bytes -= static_cast<size_t>(count);
  }
}

void BufferedFile::finish() {
  flush();
  // Network file systems report a full quota only here.
  const int failed = ::close(descriptor_);
  descriptor_ = -1;
  if (failed != 0) throw FileError(errno, path_);
}

IndexedDatasetWriter::IndexedDatasetWriter(const std::string &bin_path, const std::string &idx_path, TokenType type,
                                           Follower bin_follower, Follower idx_follower)
    : type_(type),
      bin_(bin_path, O_WRONLY, std::move(bin_follower)),
      idx_(idx_path, O_WRONLY, std::move(idx_follower)),
      idx_path_(idx_path),
      lengths_(idx_path + ".lengths", O_RDWR) {
  // The name goes at once, the file when it is closed: a killed writer leaves nothing behind.
  ::unlink((idx_path + ".lengths").c_str());
}

void IndexedDatasetWriter::check(const int64_t *tokens, int64_t count, const int64_t *lengths, int64_t sequences,
                                 const char *unit, int64_t first) const {
  const auto name = [&](int64_t i) { return std::string(unit) + " " + std::to_string(first + i); };
  if (finished_) throw std::invalid_argument("the dataset is finished; no document can be added");
  int64_t sum = 0;
  for (int64_t i = 0; i < sequences; ++i) {
    if (lengths[i] < 0 || lengths[i] > std::numeric_limits<int32_t>::max()) {
      throw std::invalid_argument(name(i) + ": " + std::to_string(lengths[i]) + " tokens, must be in 0..2147483647; cut it");
    }
    sum += lengths[i];
  }
  if (sum != count) {
    throw std::invalid_argument(name(0) + " and on: lengths add up to " + std::to_string(sum) + ", there are " +
                                std::to_string(count) + " tokens");
  }
  const int64_t largest = largest_token(type_);
  // Without a way out of the loop it is several tokens at a time; which one is at fault is asked only then.
  bool fits = true;
  for (int64_t i = 0; i < count; ++i) fits &= tokens[i] >= 0 && tokens[i] <= largest;
  for (int64_t i = 0; !fits && i < count; ++i) {
    if (tokens[i] >= 0 && tokens[i] <= largest) continue;
    int64_t sequence = 0;
    int64_t place = i;
    while (place >= lengths[sequence]) place -= lengths[sequence++];
    throw std::invalid_argument(name(sequence) + ", token " + std::to_string(place) + ": " + std::to_string(tokens[i]) +
                                " is not in 0.." + std::to_string(largest) + "; choose a wider dtype");
  }
}

template <typename Token>
void IndexedDatasetWriter::append_narrowed(const int64_t *tokens, int64_t count) {
  Token narrow[kTokensAtOnce];
  for (int64_t start = 0; start < count; start += kTokensAtOnce) {
    const int64_t block = std::min(kTokensAtOnce, count - start);
    for (int64_t i = 0; i < block; ++i) narrow[i] = static_cast<Token>(tokens[start + i]);
    bin_.write(narrow, static_cast<size_t>(block) * sizeof(Token));
  }
  tokens_ += count;
}

void IndexedDatasetWriter::append_length(int64_t length) {
  const int32_t entry = static_cast<int32_t>(length);
  lengths_.write(&entry, sizeof(entry));
  ++sequences_;
}

void IndexedDatasetWriter::append(const int64_t *tokens, int64_t count, const int64_t *lengths, int64_t sequences) {
  with_token_type(type_, [&](auto zero) { append_narrowed<decltype(zero)>(tokens, count); });
  for (int64_t i = 0; i < sequences; ++i) append_length(lengths[i]);
}

void IndexedDatasetWriter::add_document(const int64_t *tokens, int64_t count, const int64_t *lengths,
                                        int64_t sequences) {
  if (sequences == 1) return add_documents(tokens, count, lengths, 1);
  check(tokens, count, lengths, sequences, "sequence", sequences_);
  if (count > std::numeric_limits<int32_t>::max()) {
    throw std::invalid_argument("document " + std::to_string(documents_) + ": " + std::to_string(count) +
                                " tokens, at most 2147483647; cut it");
  }
  append(tokens, count, lengths, sequences);
  if (!bounds_) {
    bounds_ = std::make_unique<BufferedFile>(idx_path_ + ".bounds", O_RDWR);
    ::unlink((idx_path_ + ".bounds").c_str());
    single_ = documents_;
  }
  bounds_->write(&sequences_, sizeof(sequences_));
  ++documents_;
}

void IndexedDatasetWriter::add_documents(const int64_t *tokens, int64_t count, const int64_t *lengths,
                                         int64_t sequences) {
  check(tokens, count, lengths, sequences, "document", documents_);
  const int64_t before = sequences_;
  append(tokens, count, lengths, sequences);
  if (bounds_) {
    for (int64_t bound = before + 1; bound <= sequences_; ++bound) bounds_->write(&bound, sizeof(bound));
  }
  documents_ += sequences;
}

void IndexedDatasetWriter::add_framed(const uint32_t *tokens, const int64_t *bounds, int64_t documents, int64_t first,
                                      int64_t last) {
  uint32_t largest = 0;
  for (int64_t i = bounds[0]; i < bounds[documents]; ++i) largest = std::max(largest, tokens[i]);
  int64_t longest = 0;
  for (int64_t i = 0; i < documents; ++i) longest = std::max(longest, bounds[i + 1] - bounds[i] + 2);
  const bool fits = std::min(first, last) >= 0 && std::max({first, last, int64_t{largest}}) <= largest_token(type_) &&
                    longest <= std::numeric_limits<int32_t>::max();
  if (finished_ || !fits) return refuse_framed(tokens, bounds, documents, first, last);
  with_token_type(type_, [&](auto zero) {
    append_framed(static_cast<decltype(zero)>(first), static_cast<decltype(zero)>(last), tokens, bounds, documents);
  });
  for (int64_t i = 0; i < documents; ++i) {
    append_length(bounds[i + 1] - bounds[i] + 2);
    if (bounds_) bounds_->write(&sequences_, sizeof(sequences_));
  }
  documents_ += documents;
}

// Gathers short documents before they are written, for each write has its price.
template <typename Token>
void IndexedDatasetWriter::append_framed(Token first, Token last, const uint32_t *tokens, const int64_t *bounds,
                                         int64_t documents) {
  Token narrow[kTokensAtOnce];
  int64_t held = 0;
  const auto make_room = [&] {
    if (held < kTokensAtOnce) return;
    bin_.write(narrow, static_cast<size_t>(held) * sizeof(Token));
    held = 0;
  };
  for (int64_t i = 0; i < documents; ++i) {
    make_room();
    narrow[held++] = first;
    for (int64_t start = bounds[i]; start < bounds[i + 1];) {
      make_room();
      const int64_t block = std::min(kTokensAtOnce - held, bounds[i + 1] - start);
      for (int64_t j = 0; j < block; ++j) narrow[held + j] = static_cast<Token>(tokens[start + j]);
      held += block;
      start += block;
    }
    make_room();
    narrow[held++] = last;
  }
  bin_.write(narrow, static_cast<size_t>(held) * sizeof(Token));
  tokens_ += bounds[documents] - bounds[0] + 2 * documents;
}

// Has `check` find and name what is at fault.
void IndexedDatasetWriter::refuse_framed(const uint32_t *tokens, const int64_t *bounds, int64_t documents, int64_t first,
                                         int64_t last) {
  std::vector<int64_t> framed;
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < documents; ++i) {
    framed.push_back(first);
    framed.insert(framed.end(), tokens + bounds[i], tokens + bounds[i + 1]);
    framed.push_back(last);
    lengths.push_back(bounds[i + 1] - bounds[i] + 2);
  }
  add_documents(framed.data(), static_cast<int64_t>(framed.size()), lengths.data(), documents);
}

void IndexedDatasetWriter::add_copies(const IndexedDataset &source, const int64_t *documents, int64_t count) {
  if (finished_) throw std::invalid_argument("the dataset is finished; no document can be added");
  if (source.type() != type_) throw std::invalid_argument("its tokens are of another dtype; copy between equal ones");
  const int64_t item = token_bytes(type_);
  for (int64_t i = 0; i < count; ++i) {
    const Span span = source.document(documents[i]);
    if (span.count > std::numeric_limits<int32_t>::max()) {
      throw std::invalid_argument("document " + std::to_string(documents[i]) + ": " + std::to_string(span.count) +
                                  " tokens, at most 2147483647; cut it");
    }
    bin_.write(source.address(span.start, span.count), static_cast<size_t>(span.count * item));
    append_length(span.count);
    ++documents_;
    tokens_ += span.count;
    if (bounds_) bounds_->write(&sequences_, sizeof(sequences_));
  }
}

void IndexedDatasetWriter::finish() {
  if (finished_) throw std::invalid_argument("the dataset is already finished");
  finished_ = true;
  bin_.finish();
  lengths_.flush();

  const uint8_t code = static_cast<uint8_t>(type_);
  const uint64_t counts[] = {static_cast<uint64_t>(sequences_), static_cast<uint64_t>(documents_) + 1};
  idx_.write(kMagic, sizeof(kMagic));
  idx_.write(&kVersion, sizeof(kVersion));
  idx_.write(&code, sizeof(code));
  idx_.write(counts, sizeof(counts));

  std::vector<int32_t> lengths(kBlock);
  std::vector<int64_t> values(kBlock);
  const auto for_each_block = [](int64_t total, auto &&use) {
    for (int64_t first = 0; first < total; first += kBlock) use(first, std::min(kBlock, total - first));
  };
  const auto read_lengths = [&](int64_t first, int64_t count) {
    lengths_.read_at(4 * first, lengths.data(), static_cast<size_t>(4 * count));
  };
  const auto write_values = [&](int64_t count) { idx_.write(values.data(), static_cast<size_t>(8 * count)); };

  for_each_block(sequences_, [&](int64_t first, int64_t count) {
    read_lengths(first, count);
    idx_.write(lengths.data(), static_cast<size_t>(4 * count));
  });
  int64_t pointer = 0;
  const int64_t item = token_bytes(type_);
  for_each_block(sequences_, [&](int64_t first, int64_t count) {
    read_lengths(first, count);
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      values[i] = pointer;
      pointer += item * lengths[i];
    }
    write_values(count);
  });
  const int64_t single = bounds_ ? single_ : documents_;
  for_each_block(single + 1, [&](int64_t first, int64_t count) {
    std::iota(values.begin(), values.begin() + count, first);
    write_values(count);
  });
  if (bounds_) {
    bounds_->flush();
    for_each_block(documents_ - single_, [&](int64_t first, int64_t count) {
      bounds_->read_at(8 * first, values.data(), static_cast<size_t>(8 * count));
      write_values(count);
    });
  }
  idx_.finish();
}

}  // namespace megasbp
