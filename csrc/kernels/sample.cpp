// The sampling of kernels/sample.py, row by row: probabilities in units of 2^-40, bins of equal exponent and leading
// mantissa bits, noise for the tokens of the nucleus alone.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"
#include "parallel.h"

namespace megasbp::kernels {
namespace {

constexpr float kUnits = 1099511627776.0f;  // 2^40
constexpr int kBinShift = 18;
constexpr int kOneBits = 0x3F800000 >> kBinShift;
constexpr int kBins = 32 * 40 + 2;

struct Row {
  std::vector<float> probabilities;
  std::vector<int64_t> bins = std::vector<int64_t>(kBins);
  std::vector<int32_t> cut;
};

void softmax(int64_t size, const float *logits, float temperature, float *probabilities) {
  const float shift = largest_of(size, logits);
  Floats total{};
  for (int64_t i = 0; i < size; i += kLanes) {
    const Floats power = exponential((load(logits + i, size - i, -__builtin_inff()) - shift) / temperature);
    store(probabilities + i, power, size - i);
    total += power;
  }
  const float whole = sum(total);
  for (int64_t i = 0; i < size; i += kLanes) {
    store(probabilities + i, load(probabilities + i, size - i) / whole, size - i);
  }
}

int bin_of(float probability) {
  return std::clamp(kOneBits - (bits_as<int32_t>(probability) >> kBinShift), 0, kBins - 1);
}

int64_t units_of(float probability) { return static_cast<int64_t>(probability * kUnits); }

// The nucleus: every token of the bins before `bin`, and of that one those up to `last` in the order of (probability
// falling, token rising).
struct Nucleus {
  int bin;
  float probability;
  int64_t last;

  bool holds(float other, int64_t token) const {
    const int its_bin = bin_of(other);
    if (its_bin != bin) return its_bin < bin;
    return other != probability ? other > probability : token <= last;
  }
};

Nucleus find_nucleus(double top_p, Row &row) {
  if (top_p >= 1) return {kBins, 0, 0};
  const int64_t size = row.probabilities.size();
  std::fill(row.bins.begin(), row.bins.end(), 0);
  int64_t whole = 0;
  for (const float probability : row.probabilities) {
    const int64_t units = units_of(probability);
    row.bins[bin_of(probability)] += units;
    whole += units;
  }
  const int64_t target = static_cast<int64_t>(std::ceil(static_cast<double>(whole) * top_p));
  int64_t reached = 0;
  Nucleus nucleus{0, 0, 0};
  while (nucleus.bin < kBins && reached + row.bins[nucleus.bin] < target) reached += row.bins[nucleus.bin++];
  row.cut.clear();
  for (int64_t token = 0; token < size; ++token) {
    if (bin_of(row.probabilities[token]) == nucleus.bin) row.cut.push_back(token);
  }
  std::sort(row.cut.begin(), row.cut.end(), [&](int32_t a, int32_t b) {
    const float first = row.probabilities[a], second = row.probabilities[b];
    return first != second ? first > second : a < b;
  });
  for (const int32_t token : row.cut) {
    if (reached >= target) break;
    nucleus.probability = row.probabilities[token];
    nucleus.last = token;
    reached += units_of(nucleus.probability);
  }
  return nucleus;
}

// Philox4x32-10 (Salmon et al., SC 2011), as kernels/philox.py.
struct Philox {
  uint32_t word[4];

  Philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) : word{c0, c1, c2, c3} {
    uint32_t key_0 = static_cast<uint32_t>(key), key_1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t product_0 = uint64_t{0xD2511F53} * word[0], product_1 = uint64_t{0xCD9E8D57} * word[2];
      const uint32_t next_0 = static_cast<uint32_t>(product_1 >> 32) ^ word[1] ^ key_0;
      const uint32_t next_2 = static_cast<uint32_t>(product_0 >> 32) ^ word[3] ^ key_1;
      word[0] = next_0;
      word[1] = static_cast<uint32_t>(product_1);
      word[2] = next_2;
      word[3] = static_cast<uint32_t>(product_0);
      key_0 += 0x9E3779B9;
      key_1 += 0xBB67AE85;
    }
  }
};

// In (0, 1).
float uniform(uint32_t word) { return std::min((static_cast<float>(word) + 0.5f) * 0x1p-32f, 1 - 0x1p-24f); }

// A standard exponential number, positive.
float exponential_noise(uint32_t word) { return -std::log1p(-uniform(word)); }

// The token whose time, its probability over its noise, is the largest; the lowest of equal ones.
int64_t race(uint64_t key, const int64_t *address, const Row &row, const Nucleus &nucleus) {
  const uint32_t seed_document = address[0], draw = address[1], position = address[2];
  int64_t winner = 0, block = -1;
  float best = -1;
  Philox words(key, 0, position, draw, seed_document);
  const int64_t size = row.probabilities.size();
  for (int64_t token = 0; token < size; ++token) {
    const float probability = row.probabilities[token];
    if (!nucleus.holds(probability, token)) continue;
    if (token / 4 != block) {
      block = token / 4;
      words = Philox(key, block, position, draw, seed_document);
    }
    // The noise is at least its uniform number, so most tokens have lost before its logarithm is taken; the margin is for
    // what is rounded.
    const uint32_t word = words.word[token % 4];
    if (probability < best * 0.99999f * uniform(word)) continue;
    const float time = probability / exponential_noise(word);
    if (time > best) {
      best = time;
      winner = token;
    }
  }
  return winner;
}

// logits fp32 [rows, vocabulary]; address int64 [rows, 3]; tokens int64 [rows]; temperature above 0.
void sample(int64_t rows, int64_t vocabulary, float temperature, double top_p, uint64_t key, Address logits,
            Address address, Address tokens) {
  for_ranges(rows, rows_at_once(vocabulary), [&](int64_t, int64_t begin, int64_t end) {
    Row row;
    row.probabilities.resize(vocabulary);
    for (int64_t i = begin; i < end; ++i) {
      const float *from = at<const float>(logits) + i * vocabulary;
      softmax(vocabulary, from, temperature, row.probabilities.data());
      at<int64_t>(tokens)[i] = race(key, at<const int64_t>(address) + i * 3, row, find_nucleus(top_p, row));
    }
  });
}

}  // namespace

void register_sample(pybind11::module_ &module) { module.def("sample", &sample, Release()); }

}  // namespace megasbp::kernels
