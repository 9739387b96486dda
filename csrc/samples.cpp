#include "samples.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace megasbp {

int32_t *Row::extend(int64_t count) {
  if (count < 0 || count > room()) {
    throw std::out_of_range(std::to_string(count) + " tokens in a row with room for " + std::to_string(room()));
  }
  int32_t *place = tokens_ + filled_;
  filled_ += count;
  return place;
}

void Row::end_segment(int64_t unlabelled) {
  // Local copies: an array's values could alias the members, and the loops would not be vectorised.
  const int32_t *const tokens = tokens_ + start_;
  int32_t *const labels = labels_ + start_;
  int32_t *const positions = positions_ + start_;
  const int64_t count = filled_ - start_;
  for (int64_t i = 0; i < count; ++i) positions[i] = static_cast<int32_t>(i);
  std::fill_n(segments_ + start_, count, segment_);
  if (count > 0) {
    const int64_t masked = std::min(unlabelled, count - 1);
    std::fill_n(labels, masked, kNoLabel);
    std::copy(tokens + masked + 1, tokens + count, labels + masked);
    labels[count - 1] = kNoLabel;
  }
  start_ = filled_;
  ++segment_;
}

void Row::pad(int32_t token) {
  std::fill(tokens_ + filled_, tokens_ + length_, token);
  std::fill(labels_ + filled_, labels_ + length_, kNoLabel);
  std::fill(positions_ + filled_, positions_ + length_, int32_t{0});
  std::fill(segments_ + filled_, segments_ + length_, kPaddingSegment);
  filled_ = start_ = length_;
}

void fill_window(const IndexedDataset &dataset, int64_t start, Row &row) {
  int64_t token = start;
  int64_t document = dataset.document_at(token);
  int64_t end = dataset.document(document).end();
  while (true) {
    if (token >= end) dataset.damaged("document " + std::to_string(document) + " does not hold its tokens");
    const int64_t count = std::min(end - token, row.room());
    dataset.copy(token, count, row.extend(count));
    row.end_segment();
    if (row.room() == 0) return;
    token = end;
    if (token == dataset.tokens()) {
      token = 0;
      document = -1;
    }
    Span next{};
    do {
      next = dataset.document(++document);
      if (next.start != token) {
        dataset.damaged("document " + std::to_string(document) + " does not start where the one before it ends");
      }
    } while (next.count == 0);
    end = next.end();
  }
}

void fill_pieces(const IndexedDataset &dataset, const Pieces &pieces, int64_t first, int64_t last, int64_t capacity,
                 int32_t padding, Row &row) {
  if (first < 0 || last < first || last > pieces.count) throw std::out_of_range("row bounds outside the pieces");
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t document = pieces.documents[piece];
    const int64_t offset = pieces.starts[piece];
    const Span span = dataset.document(document);
    if (offset < 0 || offset >= span.count) throw std::out_of_range("piece outside its document");
    const int64_t count = std::min(span.count - offset, capacity);
    dataset.copy(span.start + offset, count, row.extend(count));
    row.end_segment();
  }
  row.pad(padding);
}

namespace {

// Tokens of a document without its bos and eos.
Span inside(const IndexedDataset &dataset, int64_t document, int64_t bos, int64_t eos, const char *role) {
  const Span span = dataset.document(document);
  bool framed = span.count >= 2;
  if (framed) {
    int64_t first;
    int64_t last;
    dataset.copy(span.start, 1, &first);
    dataset.copy(span.end() - 1, 1, &last);
    framed = first == bos && last == eos;
  }
  if (!framed) {
    throw std::invalid_argument(std::string(role) + " document " + std::to_string(document) +
                                " is not stored as `bos document eos`; write the dataset again with both");
  }
  return {span.start + 1, span.count - 2};
}

}  // namespace

void fill_pair(const Pairs &pairs, int64_t pair, Row &row) {
  if (pair < 0 || pair >= pairs.count) throw std::out_of_range("pair " + std::to_string(pair));
  const Span seed = inside(*pairs.seed_dataset, pairs.seeds[pair], pairs.bos, pairs.eos, "seed");
  const Span target = inside(*pairs.target_dataset, pairs.targets[pair], pairs.bos, pairs.eos, "target");
  const int64_t seed_count = std::min(seed.count, pairs.capacity / 2 - 2);
  const int64_t room = pairs.capacity - 2 - seed_count;
  const bool whole = target.count + 1 <= room;
  const int64_t target_count = whole ? target.count : room;

  *row.extend(1) = pairs.bos;
  pairs.seed_dataset->copy(seed.start, seed_count, row.extend(seed_count));
  *row.extend(1) = pairs.separator;
  pairs.target_dataset->copy(target.start, target_count, row.extend(target_count));
  if (whole) *row.extend(1) = pairs.eos;
  // bos and d1 predict nothing; the separator predicts the first token of d2.
  row.end_segment(1 + seed_count);
}

}  // namespace megasbp
