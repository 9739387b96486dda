// Rows of training and evaluation batches, filled from indexed datasets.
//
// A row holds segments one after another. Inside a segment positions count from 0 and labels are the next token; the
// last token of a segment has no label, so nothing is predicted across documents. After the last segment comes padding.
#pragma once

#include <cstdint>

#include "indexed_dataset.h"

namespace megasbp {

constexpr int32_t kNoLabel = -100;
constexpr int32_t kPaddingSegment = -1;

// One row of a batch: four arrays of `length` values, filled from left to right. They are int32: filling a batch is
// bound by the memory it is written to.
class Row {
 public:
  Row(int32_t *tokens, int32_t *labels, int32_t *positions, int32_t *segments, int64_t length)
      : tokens_(tokens), labels_(labels), positions_(positions), segments_(segments), length_(length) {}

  int64_t room() const { return length_ - filled_; }

  // Places of the next `count` tokens of the segment being written; throws std::out_of_range when the row is full.
  int32_t *extend(int64_t count);

  // Ends the segment: writes its positions, its number and its labels, of which the first `unlabelled` are masked.
  void end_segment(int64_t unlabelled = 0);

  void pad(int32_t token);

 private:
  int32_t *tokens_;
  int32_t *labels_;
  int32_t *positions_;
  int32_t *segments_;
  int64_t length_;
  int64_t filled_ = 0;
  int64_t start_ = 0;
  int32_t segment_ = 0;
};

// A whole row of the circular token stream from token `start` on; document borders and the wrap end segments.
void fill_window(const IndexedDataset &dataset, int64_t start, Row &row);

// Pieces of documents, each a segment: piece p is documents[p] from its token starts[p] on, as long as the row.
struct Pieces {
  const int64_t *documents;
  const int64_t *starts;
  int64_t count;
};
void fill_pieces(const IndexedDataset &dataset, const Pieces &pieces, int64_t first, int64_t last, int64_t capacity,
                 int32_t padding, Row &row);

// Pairs, each a segment `bos d1 sep d2 eos` of at most `capacity` tokens with labels on d2 and the final eos only.
// d1 is cut to capacity / 2 - 2 tokens; d2 to what is left, and then has no eos.
struct Pairs {
  const IndexedDataset *seed_dataset;
  const IndexedDataset *target_dataset;
  const int64_t *seeds;
  const int64_t *targets;
  int64_t count;
  int32_t bos;
  int32_t separator;
  int32_t eos;
  int64_t capacity;
};
void fill_pair(const Pairs &pairs, int64_t pair, Row &row);

}  // namespace megasbp
