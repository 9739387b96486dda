// Batches in Python: each function returns int32 [4, rows, length]: tokens, labels, positions, segments.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "arrays.h"
#include "batch_memory.h"
#include "parallel_for.h"
#include "samples.h"

namespace py = pybind11;

namespace megasbp {
namespace {

using Arrays = py::array_t<int32_t, py::array::c_style>;

// A thread costs about as much as filling some ten thousand tokens.
constexpr int64_t kTokensPerThread = int64_t{1} << 16;
constexpr int64_t kMostThreads = 8;

int64_t choose_threads(int64_t requested, int64_t tokens) {
  if (requested > 0) return requested;
  const int64_t cores = static_cast<int64_t>(std::thread::hardware_concurrency());
  return std::clamp<int64_t>(tokens / kTokensPerThread, 1, std::clamp<int64_t>(cores, 1, kMostThreads));
}

// Allocates the batch and fills its rows by fill(index, row) without the GIL.
template <typename Fill>
Arrays fill_batch(int64_t rows, int64_t length, int64_t threads, const Fill &fill) {
  if (length < 1) throw std::invalid_argument("rows of " + std::to_string(length) + " tokens, at least 1");
  // Checked before it is allocated: the number of bytes must not overflow.
  if (length > std::numeric_limits<int32_t>::max() ||
      length > std::numeric_limits<int64_t>::max() / 16 / std::max<int64_t>(rows, 1)) {
    throw std::invalid_argument(std::to_string(rows) + " rows of " + std::to_string(length) + " tokens, too many");
  }
  const int64_t cells = rows * length;
  const std::shared_ptr<int32_t> memory = BatchMemory::take(static_cast<size_t>(4 * cells));
  int32_t *const tokens = memory.get();
  int32_t *const labels = tokens + cells;
  int32_t *const positions = labels + cells;
  int32_t *const segments = positions + cells;
  {
    py::gil_scoped_release release;
    parallel_for(rows, choose_threads(threads, cells), [&](int64_t index) {
      const int64_t offset = index * length;
      Row row(tokens + offset, labels + offset, positions + offset, segments + offset, length);
      fill(index, row);
    });
  }
  const py::capsule owner(new std::shared_ptr<int32_t>(memory),
                          [](void *held) { delete static_cast<std::shared_ptr<int32_t> *>(held); });
  return Arrays({int64_t{4}, rows, length}, tokens, owner);
}

// The rows of a packing: `bounds` has one entry more than rows.
class PackedRows {
 public:
  PackedRows(const IndexArray &bounds, const IndexArray &rows)
      : bounds_(bounds.data()), count_(bounds.size() - 1), rows_(rows.data()) {}

  struct Range {
    int64_t first;
    int64_t last;
  };

  Range operator[](int64_t index) const {
    const int64_t row = rows_[index];
    if (row < 0 || row >= count_) {
      throw std::out_of_range("row " + std::to_string(row) + " of " + std::to_string(count_));
    }
    return {bounds_[row], bounds_[row + 1]};
  }

 private:
  const int64_t *bounds_;
  int64_t count_;
  const int64_t *rows_;
};

Arrays window_batch(const IndexedDataset &dataset, const IndexArray &starts, int64_t length, int64_t threads) {
  const int64_t *start = starts.data();
  return fill_batch(starts.size(), length, threads,
                    [&](int64_t index, Row &row) { fill_window(dataset, start[index], row); });
}

Arrays piece_batch(const IndexedDataset &dataset, const IndexArray &bounds, const IndexArray &documents,
                   const IndexArray &offsets, const IndexArray &rows, int64_t length, int32_t padding,
                   int64_t threads) {
  if (documents.size() != offsets.size()) throw std::invalid_argument("a piece needs a document and an offset");
  const PackedRows packed(bounds, rows);
  const Pieces pieces{documents.data(), offsets.data(), documents.size()};
  return fill_batch(rows.size(), length, threads, [&](int64_t index, Row &row) {
    const PackedRows::Range range = packed[index];
    fill_pieces(dataset, pieces, range.first, range.last, length, padding, row);
  });
}

Arrays pair_batch(const IndexedDataset &seed_dataset, const IndexedDataset &target_dataset,
                  const IndexArray &bounds, const IndexArray &row_pairs, const IndexArray &seeds,
                  const IndexArray &targets, const IndexArray &rows, int64_t length, int32_t bos,
                  int32_t separator, int32_t eos, int64_t threads) {
  if (seeds.size() != targets.size()) throw std::invalid_argument("a pair needs a seed and a target");
  const PackedRows packed(bounds, rows);
  const int64_t *items = row_pairs.data();
  const int64_t item_count = row_pairs.size();
  const Pairs pairs{&seed_dataset, &target_dataset, seeds.data(), targets.data(), seeds.size(), bos,
                    separator,     eos,             length};
  return fill_batch(rows.size(), length, threads, [&](int64_t index, Row &row) {
    const PackedRows::Range range = packed[index];
    if (range.first < 0 || range.last > item_count) throw std::out_of_range("row bounds outside the pairs");
    for (int64_t item = range.first; item < range.last; ++item) fill_pair(pairs, items[item], row);
    row.pad(eos);
  });
}

}  // namespace
}  // namespace megasbp

void register_samples(py::module_ &module) {
  // noconvert: a plan may be larger than memory, and a wrong dtype must fail instead of copying it at each batch.
  module.def("window_batch", &megasbp::window_batch, py::arg("dataset"), py::arg("starts").noconvert(),
             py::arg("length"), py::arg("threads") = 0);
  module.def("piece_batch", &megasbp::piece_batch, py::arg("dataset"), py::arg("bounds").noconvert(),
             py::arg("documents").noconvert(), py::arg("offsets").noconvert(), py::arg("rows").noconvert(),
             py::arg("length"), py::arg("padding"), py::arg("threads") = 0);
  module.def("pair_batch", &megasbp::pair_batch, py::arg("seed_dataset"), py::arg("target_dataset"),
             py::arg("bounds").noconvert(), py::arg("row_pairs").noconvert(), py::arg("seeds").noconvert(),
             py::arg("targets").noconvert(), py::arg("rows").noconvert(), py::arg("length"), py::arg("bos"),
             py::arg("separator"), py::arg("eos"), py::arg("threads") = 0);
}
