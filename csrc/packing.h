// Best-fit-decreasing packing of items into rows of a fixed capacity.
#pragma once

#include <cstdint>
#include <vector>

namespace megasbp {

struct Packing {
  std::vector<int64_t> bounds;  // [rows + 1]: row r holds items[bounds[r]] to items[bounds[r + 1]] - 1.
  std::vector<int64_t> items;   // [items], ascending within a row.
};

// Each item, longest first and earlier first among equals, goes to the row with the least room that still holds it.
// Rows are numbered by their first item, so they follow the items' order. O(n log capacity).
// Throws std::invalid_argument when a length is not in [1, capacity].
Packing pack_best_fit(const int64_t *lengths, int64_t count, int64_t capacity);

}  // namespace megasbp
