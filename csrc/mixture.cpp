#include "mixture.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "arrays.h"

namespace py = pybind11;

namespace megasbp {
namespace {

constexpr int64_t kLargestTotal = int64_t{1} << 62;

// Samples that go left among the first n of a node with `left` of its `total` samples on the left.
int64_t count_left(int64_t n, int64_t left, int64_t total) {
  const auto product = static_cast<unsigned __int128>(n) * static_cast<unsigned __int128>(left);
  return static_cast<int64_t>((product + static_cast<unsigned __int128>(total / 2)) /
                              static_cast<unsigned __int128>(total));
}

}  // namespace

Mixture::Mixture(const std::vector<int64_t> &totals) : prefix_{0} {
  for (const int64_t total : totals) {
    if (total < 0 || total > kLargestTotal - prefix_.back()) {
      throw std::invalid_argument("a part of " + std::to_string(total) +
                                  " samples; parts are not negative and sum to at most 2**62");
    }
    prefix_.push_back(prefix_.back() + total);
  }
  if (prefix_.back() < 1) throw std::invalid_argument("a mixture of no samples; give at least one part a sample");
}

Mixture::Place Mixture::locate(int64_t i) const {
  if (i < 0) throw std::invalid_argument("sample index " + std::to_string(i) + " is negative");
  const int64_t epoch = i / total();
  int64_t n = i % total();
  size_t low = 0;
  size_t high = prefix_.size() - 1;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    const int64_t left = prefix_[middle] - prefix_[low];
    const int64_t whole = prefix_[high] - prefix_[low];
    const int64_t before = count_left(n, left, whole);
    if (count_left(n + 1, left, whole) > before) {
      n = before;
      high = middle;
    } else {
      n -= before;
      low = middle;
    }
  }
  return {static_cast<int64_t>(low), epoch * (prefix_[high] - prefix_[low]) + n};
}

}  // namespace megasbp

void register_mixture(py::module_ &module) {
  using megasbp::IndexArray;
  using megasbp::Mixture;
  py::class_<Mixture>(module, "Mixture")
      .def(py::init<const std::vector<int64_t> &>(), py::arg("totals"))
      .def_property_readonly("total", &Mixture::total)
      .def(
          "locate",
          [](const Mixture &self, const IndexArray &indices) {
            IndexArray parts(indices.size());
            IndexArray local(indices.size());
            for (int64_t i = 0; i < indices.size(); ++i) {
              const Mixture::Place place = self.locate(indices.data()[i]);
              parts.mutable_data()[i] = place.part;
              local.mutable_data()[i] = place.index;
            }
            return py::make_tuple(parts, local);
          },
          py::arg("indices"));
}
