#include "indexed_dataset_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace megasbp {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

}  // namespace

BufferedFile::BufferedFile(std::string path, int flags) : path_(std::move(path)) {
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
  if (::fsync(descriptor_) != 0) throw FileError(errno, path_);
  // Network file systems report a full quota only here.
  const int failed = ::close(descriptor_);
  descriptor_ = -1;
  if (failed != 0) throw FileError(errno, path_);
}

IndexedDatasetWriter::IndexedDatasetWriter(const std::string &bin_path, const std::string &idx_path, TokenType type)
    : type_(type), bin_(bin_path, O_WRONLY), idx_(idx_path, O_WRONLY), lengths_(idx_path + ".lengths", O_RDWR) {
  // The name goes at once, the file when it is closed: a killed writer leaves nothing behind.
  ::unlink((idx_path + ".lengths").c_str());
}

template <typename Token>
void IndexedDatasetWriter::append(const int64_t *tokens, int64_t count) {
  narrow_.resize(static_cast<size_t>(count) * sizeof(Token));
  Token *out = reinterpret_cast<Token *>(narrow_.data());
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<Token>(tokens[i]);
  bin_.write(narrow_.data(), narrow_.size());
}

void IndexedDatasetWriter::add(const int64_t *tokens, int64_t count) {
  if (finished_) throw std::invalid_argument("the dataset is finished; no document can be added");
  if (count > std::numeric_limits<int32_t>::max()) {
    throw std::invalid_argument("document " + std::to_string(documents_) + ": " + std::to_string(count) +
                                " tokens, at most 2147483647; cut it");
  }
  const int64_t largest = largest_token(type_);
  for (int64_t i = 0; i < count; ++i) {
    if (tokens[i] < 0 || tokens[i] > largest) {
      throw std::invalid_argument("document " + std::to_string(documents_) + ", token " + std::to_string(i) + ": " +
                                  std::to_string(tokens[i]) + " is not in 0.." + std::to_string(largest) +
                                  "; choose a wider dtype");
    }
  }
  switch (type_) {
    case TokenType::kUint8: append<uint8_t>(tokens, count); break;
    case TokenType::kInt8: append<int8_t>(tokens, count); break;
    case TokenType::kInt16: append<int16_t>(tokens, count); break;
    case TokenType::kUint16: append<uint16_t>(tokens, count); break;
    case TokenType::kInt32: append<int32_t>(tokens, count); break;
    case TokenType::kInt64: append<int64_t>(tokens, count); break;
  }
  const int32_t length = static_cast<int32_t>(count);
  lengths_.write(&length, sizeof(length));
  ++documents_;
  tokens_ += count;
}

template <typename Token>
void IndexedDatasetWriter::append_framed(const uint32_t *tokens, int64_t count, int64_t first, int64_t last) {
  narrow_.resize(static_cast<size_t>(count + 2) * sizeof(Token));
  Token *out = reinterpret_cast<Token *>(narrow_.data());
  out[0] = static_cast<Token>(first);
  for (int64_t i = 0; i < count; ++i) out[i + 1] = static_cast<Token>(tokens[i]);
  out[count + 1] = static_cast<Token>(last);
  bin_.write(narrow_.data(), narrow_.size());
}

void IndexedDatasetWriter::add_framed(const uint32_t *tokens, const int64_t *bounds, int64_t documents, int64_t first,
                                      int64_t last) {
  if (finished_) throw std::invalid_argument("the dataset is finished; no document can be added");
  const int64_t largest = largest_token(type_);
  for (int64_t document = 0; document < documents; ++document) {
    const int64_t count = bounds[document + 1] - bounds[document];
    if (count > std::numeric_limits<int32_t>::max() - 2) {
      throw std::invalid_argument("document " + std::to_string(documents_ + document) + ": " + std::to_string(count) +
                                  " tokens, at most 2147483645 between two more; cut it");
    }
    uint32_t highest = 0;
    for (int64_t i = bounds[document]; i < bounds[document + 1]; ++i) highest = std::max(highest, tokens[i]);
    const int64_t least = std::min(first, last);
    const int64_t most = std::max({first, last, static_cast<int64_t>(highest)});
    if (least < 0 || most > largest) {
      throw std::invalid_argument("document " + std::to_string(documents_ + document) + ": token " +
                                  std::to_string(least < 0 ? least : most) + " is not in 0.." +
                                  std::to_string(largest) + "; choose a wider dtype");
    }
  }
  for (int64_t document = 0; document < documents; ++document) {
    const int64_t count = bounds[document + 1] - bounds[document];
    const uint32_t *start = tokens + bounds[document];
    switch (type_) {
      case TokenType::kUint8: append_framed<uint8_t>(start, count, first, last); break;
      case TokenType::kInt8: append_framed<int8_t>(start, count, first, last); break;
      case TokenType::kInt16: append_framed<int16_t>(start, count, first, last); break;
      case TokenType::kUint16: append_framed<uint16_t>(start, count, first, last); break;
      case TokenType::kInt32: append_framed<int32_t>(start, count, first, last); break;
      case TokenType::kInt64: append_framed<int64_t>(start, count, first, last); break;
    }
    const int32_t length = static_cast<int32_t>(count + 2);
    lengths_.write(&length, sizeof(length));
    ++documents_;
    tokens_ += count + 2;
  }
}

void IndexedDatasetWriter::finish() {
  if (finished_) throw std::invalid_argument("the dataset is already finished");
  finished_ = true;
  bin_.finish();
  lengths_.flush();

  const uint8_t code = static_cast<uint8_t>(type_);
  const uint64_t sequences = static_cast<uint64_t>(documents_);
  const uint64_t bounds = sequences + 1;
  idx_.write(kMagic, sizeof(kMagic));
  idx_.write(&kVersion, sizeof(kVersion));
  idx_.write(&code, sizeof(code));
  idx_.write(&sequences, sizeof(sequences));
  idx_.write(&bounds, sizeof(bounds));

  constexpr int64_t kBlock = 1 << 16;
  std::vector<int32_t> lengths(kBlock);
  const auto for_each_block = [&](auto &&use) {
    for (int64_t first = 0; first < documents_; first += kBlock) {
      const int64_t count = std::min(kBlock, documents_ - first);
      lengths_.read_at(4 * first, lengths.data(), static_cast<size_t>(4 * count));
      use(count);
    }
  };
  for_each_block([&](int64_t count) { idx_.write(lengths.data(), static_cast<size_t>(4 * count)); });
  int64_t pointer = 0;
  const int64_t item = token_bytes(type_);
  for_each_block([&](int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      idx_.write(&pointer, sizeof(pointer));
      pointer += item * lengths[static_cast<size_t>(i)];
    }
  });
  for (int64_t bound = 0; bound <= documents_; ++bound) idx_.write(&bound, sizeof(bound));
  idx_.finish();
}

}  // namespace megasbp
