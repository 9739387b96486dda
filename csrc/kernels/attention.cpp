// Causal attention within segments. One work item is a key-value head of a segment. Its queries are taken kRows at a
// time, so that a key or value is loaded once for all of them; each of their numbers is summed in an order that depends
// on the query and its keys alone.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "head_dims.h"
#include "kernels.h"
#include "powers.h"

namespace megasbp::kernels {
namespace {

constexpr int kRows = 4;

struct Shape {
  int64_t heads, kv_heads, head_dim;
};

// Keys or values of one head: rows of numbers at a fixed distance.
struct Head {
  const float *rows;
  int64_t stride;

  const float *operator[](int64_t row) const { return rows + row * stride; }
};

struct Forward {
  const float *q, *k, *v;
  float *mixed, *log_sums;
};

struct Backward {
  const float *q, *k, *v, *mixed, *log_sums, *gradient;
  float *q_gradient, *k_gradient, *v_gradient;
};

int64_t whole_vectors(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// Memory of one thread, for the longest segment. The gradients of keys and values are summed here and not where they
// belong, because a head's rows are far apart there.
struct Scratch {
  int64_t size;
  AlignedFloats keys, values, weights, slopes, key_gradient, value_gradient;

  Scratch(int64_t longest, int64_t head_dim, bool backward)
      : size(whole_vectors(longest)),
        keys(aligned_floats(size * head_dim)),
        values(aligned_floats(backward ? size * head_dim : 0)),
        weights(aligned_floats(size * kRows)),
        slopes(aligned_floats(backward ? size * kRows : 0)),
        key_gradient(aligned_floats(backward ? longest * head_dim : 0)),
        value_gradient(aligned_floats(backward ? longest * head_dim : 0)) {}
};

// Tokens [begin, end) and one key-value head, with the query heads that share it.
struct Item {
  int64_t begin, end, kv_head, group;

  int64_t length() const { return end - begin; }
  int64_t rows() const { return length() * group; }
  // The keys that a row sees.
  int64_t count(int64_t row) const { return row / group + 1; }
  // Where a row of queries stands among [tokens, heads].
  int64_t place(int64_t row, int64_t heads) const { return (begin + row / group) * heads + kv_head * group + row % group; }
};

// [length / kLanes, head_dim, kLanes]: kLanes keys side by side; zeros behind the last.
template <int HEAD_DIM>
MEGASBP_INLINE void turn(const Head &rows, int64_t length, float *turned) {
  std::fill(turned + length / kLanes * kLanes * HEAD_DIM, turned + whole_vectors(length) * HEAD_DIM, 0.0f);
  for (int64_t i = 0; i < length; ++i) {
    float *to = turned + i / kLanes * kLanes * HEAD_DIM + i % kLanes;
    for (int e = 0; e < HEAD_DIM; ++e) to[e * kLanes] = rows[i][e];
  }
}

// kRows rows of numbers, of a query or a gradient each; zeros where there is no such row.
template <int HEAD_DIM>
struct Tile {
  alignas(sizeof(Floats)) float numbers[kRows][HEAD_DIM] = {};

  void load_row(int row, const float *from, float scale) {
    for (int e = 0; e < HEAD_DIM; ++e) numbers[row][e] = from[e] * scale;
  }
};

// products [kRows, size]: of every row with the first `count` keys, up to a whole vector.
template <int HEAD_DIM>
MEGASBP_INLINE void multiply_turned(const Tile<HEAD_DIM> &tile, const float *turned, int64_t count, int64_t size,
                                    float *products) {
  for (int64_t first = 0; first < count; first += kLanes) {
    const float *block = turned + first * HEAD_DIM;
    Floats sums[kRows] = {};
    for (int e = 0; e < HEAD_DIM; ++e) {
      const Floats keys = load(block + e * kLanes);
      for (int r = 0; r < kRows; ++r) sums[r] += tile.numbers[r][e] * keys;
    }
    for (int r = 0; r < kRows; ++r) store(products + r * size + first, sums[r]);
  }
}

// mixed [kRows, HEAD_DIM] = weights [kRows, size] times the first `count` rows.
template <int HEAD_DIM>
MEGASBP_INLINE void multiply_rows(const float *weights, int64_t size, const Head &rows, int64_t count,
                                  Tile<HEAD_DIM> &mixed) {
  for (int e = 0; e < HEAD_DIM; e += 2 * kLanes) {
    Floats low[kRows] = {}, high[kRows] = {};
    for (int64_t i = 0; i < count; ++i) {
      const Floats first = load(rows[i] + e), second = load(rows[i] + e + kLanes);
      for (int r = 0; r < kRows; ++r) {
        const float weight = weights[r * size + i];
        low[r] += weight * first;
        high[r] += weight * second;
      }
    }
    for (int r = 0; r < kRows; ++r) {
      store(mixed.numbers[r] + e, low[r]);
      store(mixed.numbers[r] + e + kLanes, high[r]);
    }
  }
}

// rows [count, HEAD_DIM] += the transpose of weights [kRows, size] times the tile.
template <int HEAD_DIM>
MEGASBP_INLINE void add_outer(const float *weights, int64_t size, const Tile<HEAD_DIM> &tile, int64_t count,
                              float *rows) {
  for (int e = 0; e < HEAD_DIM; e += kLanes) {
    Floats part[kRows];
    for (int r = 0; r < kRows; ++r) part[r] = load(tile.numbers[r] + e);
    for (int64_t i = 0; i < count; ++i) {
      float *row = rows + i * HEAD_DIM + e;
      Floats total = load(row);
      for (int r = 0; r < kRows; ++r) total += weights[r * size + i] * part[r];
      store(row, total);
    }
  }
}

// What a row does not see becomes -infinity, up to the whole vector in which the tile's last key stands.
void forbid(float *products, int64_t count, int64_t seen) {
  std::fill(products + count, products + whole_vectors(seen), -__builtin_inff());
}

template <int HEAD_DIM>
void attend(const Shape &s, const Forward &f, const Item &item, Scratch &scratch) {
  const int64_t stride = s.kv_heads * HEAD_DIM, first_key = (item.begin * s.kv_heads + item.kv_head) * HEAD_DIM;
  const Head values{f.v + first_key, stride};
  const float scale = 1 / std::sqrt(static_cast<float>(HEAD_DIM));
  float *weights = scratch.weights.get();
  turn<HEAD_DIM>({f.k + first_key, stride}, item.length(), scratch.keys.get());
  for (int64_t first = 0; first < item.rows(); first += kRows) {
    const int rows = static_cast<int>(std::min<int64_t>(kRows, item.rows() - first));
    const int64_t seen = item.count(first + rows - 1);
    Tile<HEAD_DIM> queries, mixed;
    for (int r = 0; r < rows; ++r) queries.load_row(r, f.q + item.place(first + r, s.heads) * HEAD_DIM, scale);
    multiply_turned<HEAD_DIM>(queries, scratch.keys.get(), seen, scratch.size, weights);
    float sums[kRows];
    for (int r = 0; r < rows; ++r) {
      forbid(weights + r * scratch.size, item.count(first + r), seen);
      float *row = weights + r * scratch.size;
      const Powers powers = take_powers(whole_vectors(seen), row, row);
      sums[r] = powers.sum;
      f.log_sums[item.place(first + r, s.heads)] = powers.largest + std::log(powers.sum);
    }
    multiply_rows<HEAD_DIM>(weights, scratch.size, values, seen, mixed);
    for (int r = 0; r < rows; ++r) {
      float *to = f.mixed + item.place(first + r, s.heads) * HEAD_DIM;
      for (int e = 0; e < HEAD_DIM; ++e) to[e] = mixed.numbers[r][e] / sums[r];
    }
  }
}

template <int HEAD_DIM>
void attend(const Shape &s, const Backward &b, const Item &item, Scratch &scratch) {
  const int64_t stride = s.kv_heads * HEAD_DIM, first_key = (item.begin * s.kv_heads + item.kv_head) * HEAD_DIM;
  const Head keys{b.k + first_key, stride}, values{b.v + first_key, stride};
  const float scale = 1 / std::sqrt(static_cast<float>(HEAD_DIM));
  float *weights = scratch.weights.get(), *slopes = scratch.slopes.get();
  float *key_gradient = scratch.key_gradient.get(), *value_gradient = scratch.value_gradient.get();
  turn<HEAD_DIM>(keys, item.length(), scratch.keys.get());
  turn<HEAD_DIM>(values, item.length(), scratch.values.get());
  std::fill(key_gradient, key_gradient + item.length() * HEAD_DIM, 0.0f);
  std::fill(value_gradient, value_gradient + item.length() * HEAD_DIM, 0.0f);
  for (int64_t first = 0; first < item.rows(); first += kRows) {
    const int rows = static_cast<int>(std::min<int64_t>(kRows, item.rows() - first));
    const int64_t seen = item.count(first + rows - 1);
    // Rows that are missing are zeros, and add nothing to any gradient.
    Tile<HEAD_DIM> queries, gradients, q_gradients;
    for (int r = 0; r < rows; ++r) {
      const int64_t place = item.place(first + r, s.heads);
      queries.load_row(r, b.q + place * HEAD_DIM, scale);
      gradients.load_row(r, b.gradient + place * HEAD_DIM, 1);
    }
    multiply_turned<HEAD_DIM>(queries, scratch.keys.get(), seen, scratch.size, weights);
    multiply_turned<HEAD_DIM>(gradients, scratch.values.get(), seen, scratch.size, slopes);
    for (int r = 0; r < rows; ++r) {
      const int64_t place = item.place(first + r, s.heads);
      float *row_weights = weights + r * scratch.size, *row_slopes = slopes + r * scratch.size;
      Floats along{};
      for (int e = 0; e < HEAD_DIM; e += kLanes) {
        along += load(gradients.numbers[r] + e) * load(b.mixed + place * HEAD_DIM + e);
      }
      const float delta = sum(along);
      forbid(row_weights, item.count(first + r), seen);
      for (int64_t i = 0; i < seen; i += kLanes) {
        const Floats weight = exponential(load(row_weights + i) - b.log_sums[place]);
        store(row_weights + i, weight);
        store(row_slopes + i, weight * (load(row_slopes + i) - delta));
      }
    }
    multiply_rows<HEAD_DIM>(slopes, scratch.size, keys, seen, q_gradients);
    add_outer<HEAD_DIM>(slopes, scratch.size, queries, seen, key_gradient);
    add_outer<HEAD_DIM>(weights, scratch.size, gradients, seen, value_gradient);
    for (int r = 0; r < rows; ++r) {
      float *to = b.q_gradient + item.place(first + r, s.heads) * HEAD_DIM;
      for (int e = 0; e < HEAD_DIM; ++e) to[e] = q_gradients.numbers[r][e] * scale;
    }
  }
  for (int64_t i = 0; i < item.length(); ++i) {
    std::memcpy(b.k_gradient + first_key + i * stride, key_gradient + i * HEAD_DIM, HEAD_DIM * sizeof(float));
    std::memcpy(b.v_gradient + first_key + i * stride, value_gradient + i * HEAD_DIM, HEAD_DIM * sizeof(float));
  }
}

// starts: int64 [segments + 1], rising from 0 to the number of tokens.
template <typename Pass>
void for_segments(const Shape &shape, int64_t segments, const int64_t *starts, bool backward, const Pass &pass) {
  int64_t longest = 0;
  for (int64_t i = 0; i < segments; ++i) longest = std::max(longest, starts[i + 1] - starts[i]);
  with_head_dim(shape.head_dim, [&](auto head_dim) {
#pragma omp parallel
    {
      Scratch scratch(longest, shape.head_dim, backward);
#pragma omp for schedule(dynamic)
      for (int64_t i = 0; i < segments * shape.kv_heads; ++i) {
        const int64_t segment = i / shape.kv_heads;
        const Item item{starts[segment], starts[segment + 1], i % shape.kv_heads, shape.heads / shape.kv_heads};
        attend<decltype(head_dim)::value>(shape, pass, item, scratch);
      }
    }
  });
}

// q, mixed fp32 [tokens, heads, head_dim]; k, v [tokens, kv_heads, head_dim]; log_sums fp32 [tokens, heads].
void attention_forward(int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t segments, Address starts, Address q,
                       Address k, Address v, Address mixed, Address log_sums) {
  const Forward pass{at<const float>(q), at<const float>(k), at<const float>(v), at<float>(mixed),
                     at<float>(log_sums)};
  for_segments({heads, kv_heads, head_dim}, segments, at<const int64_t>(starts), false, pass);
}

// gradient: of mixed; the three others are written.
void attention_backward(int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t segments, Address starts, Address q,
                        Address k, Address v, Address mixed, Address log_sums, Address gradient, Address q_gradient,
                        Address k_gradient, Address v_gradient) {
  const Backward pass{at<const float>(q),        at<const float>(k),        at<const float>(v),
                      at<const float>(mixed),    at<const float>(log_sums), at<const float>(gradient),
                      at<float>(q_gradient),     at<float>(k_gradient),     at<float>(v_gradient)};
  for_segments({heads, kv_heads, head_dim}, segments, at<const int64_t>(starts), true, pass);
}

}  // namespace

void register_attention(pybind11::module_ &module) {
  module.def("attention_forward", &attention_forward, Release());
  module.def("attention_backward", &attention_backward, Release());
}

}  // namespace megasbp::kernels
