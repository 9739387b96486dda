// Rows near to queries: bounds of 8-bit products say which may be, exact products decide.
#pragma once

#include <cstdint>
#include <vector>

#include "best_rows.h"
#include "float_rows.h"
#include "int8_products.h"

namespace megasbp {

// Rows that are compared with one batch of queries after the other.
class NearRows {
 public:
  // Holds `vectors`, which its rows are read from again.
  NearRows(const FloatRows &vectors, int64_t threads);

  int64_t count() const { return vectors_.count(); }
  int64_t width() const { return vectors_.width(); }

  // Puts the rows, numbered from `first` on, among the best rows of each query. own_row: numbered alike, left out.
  void improve(const FloatRows &queries, const int64_t *own_row, int64_t first, const BestRows<float> &found,
               int64_t threads) const;

  struct Pairs {
    std::vector<int64_t> query, row;
    std::vector<double> similarity;
  };
  // Pairs that reach the limit of one of the two, by query, then row; one part after the other.
  std::vector<Pairs> pairs(const FloatRows &queries, const float *query_limit, const float *row_limit,
                           int64_t threads) const;

 private:
  FloatRows vectors_;
  Int8Rows rounded_;
};

}  // namespace megasbp
