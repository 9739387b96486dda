// Exact mixtures: which part sample i is drawn from, and which of that part's samples it is.
#pragma once

#include <cstdint>
#include <vector>

namespace megasbp {

// A balanced binary tree over the parts. A node with a samples on its left and b on its right gives the left
// floor((n a + (a + b) / 2) / (a + b)) of its first n samples: within half a sample of n a / (a + b) at every prefix
// and exact at n = a + b. A level scales the deviation of the level above by a share and adds at most half a sample,
// so K parts stay within ceil(log2 K) / 2 samples of their shares. Finding a sample takes ceil(log2 K) steps.
class Mixture {
 public:
  struct Place {
    int64_t part;
    int64_t index;
  };

  // Samples of each part, >= 0, with a sum in [1, 2**62]; std::invalid_argument otherwise.
  explicit Mixture(const std::vector<int64_t> &totals);

  // Place of sample i >= 0 (else std::invalid_argument). Past the total the mixture begins again and each part goes on
  // with its own next samples.
  Place locate(int64_t i) const;

  int64_t total() const { return prefix_.back(); }

 private:
  std::vector<int64_t> prefix_;  // prefix_[k]: samples of the parts before part k.
};

}  // namespace megasbp
