// The best rows of each owner, in tables that are filled one row after the other.
#pragma once

#include <cstdint>

namespace megasbp {

// `best` rows to each owner, by falling similarity, then lower row; -infinity and -1 where none.
template <typename Number>
struct BestRows {
  Number *similarity;
  int64_t *row;
  int64_t best;

  // The similarity that a row must reach.
  Number worst(int64_t owner) const { return similarity[(owner + 1) * best - 1]; }

  // Takes a row if it is one of the best and not there yet; equal rows must have equal similarities.
  void insert(int64_t owner, Number value, int64_t number) const {
    Number *similarities = similarity + owner * best;
    int64_t *rows = row + owner * best;
    int64_t place = best;
    while (place > 0 && (value > similarities[place - 1] ||
                         (value == similarities[place - 1] && (number < rows[place - 1] || rows[place - 1] < 0))))
      --place;
    if (place == best || (place > 0 && similarities[place - 1] == value && rows[place - 1] == number)) return;
    for (int64_t i = best - 1; i > place; --i) {
      similarities[i] = similarities[i - 1];
      rows[i] = rows[i - 1];
    }
    similarities[place] = value;
    rows[place] = number;
  }
};

}  // namespace megasbp
