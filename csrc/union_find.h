// Disjoint sets of documents; the root of a set is its smallest member, so that a label names the set.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace megasbp {

class UnionFind {
 public:
  explicit UnionFind(std::int64_t size = 0) : parents_(static_cast<std::size_t>(size)) {
    std::iota(parents_.begin(), parents_.end(), std::int64_t{0});
  }

  std::int64_t size() const { return static_cast<std::int64_t>(parents_.size()); }

  void add() { parents_.push_back(size()); }

  // Halves the path on its way. A parent is never larger than its child.
  std::int64_t root(std::int64_t member) {
    while (at(member) != member) {
      at(member) = at(at(member));
      member = at(member);
    }
    return member;
  }

  void join(std::int64_t a, std::int64_t b) {
    a = root(a);
    b = root(b);
    at(std::max(a, b)) = std::min(a, b);
  }

  // Every member's root, in one ascending pass and in place; leaves nothing behind.
  std::vector<std::int64_t> take_labels() {
    for (std::int64_t &parent : parents_) parent = at(parent);
    return std::move(parents_);
  }

 private:
  std::int64_t &at(std::int64_t member) { return parents_[static_cast<std::size_t>(member)]; }

  std::vector<std::int64_t> parents_;
};

}  // namespace megasbp
