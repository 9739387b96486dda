#include "packing.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>

#include "arrays.h"

namespace py = pybind11;

namespace megasbp {

Packing pack_best_fit(const int64_t *lengths, int64_t count, int64_t capacity) {
  for (int64_t i = 0; i < count; ++i) {
    if (lengths[i] < 1 || lengths[i] > capacity) {
      throw std::invalid_argument("item " + std::to_string(i) + " of length " + std::to_string(lengths[i]) +
                                  " does not fit rows of 1.." + std::to_string(capacity));
    }
  }
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });

  std::vector<std::vector<int64_t>> rows;
  // Room left -> rows that have exactly that much, the most recent last.
  std::map<int64_t, std::vector<size_t>> open;
  for (const int64_t item : order) {
    const auto fit = open.lower_bound(lengths[item]);
    size_t row;
    int64_t room = capacity;
    if (fit == open.end()) {
      row = rows.size();
      rows.emplace_back();
    } else {
      room = fit->first;
      row = fit->second.back();
      fit->second.pop_back();
      if (fit->second.empty()) open.erase(fit);
    }
    rows[row].push_back(item);
    if (room > lengths[item]) open[room - lengths[item]].push_back(row);
  }
  for (auto &row : rows) std::sort(row.begin(), row.end());
  std::sort(rows.begin(), rows.end(), [](const auto &a, const auto &b) { return a.front() < b.front(); });

  Packing packing;
  packing.items.reserve(static_cast<size_t>(count));
  packing.bounds.reserve(rows.size() + 1);
  packing.bounds.push_back(0);
  for (const auto &row : rows) {
    packing.items.insert(packing.items.end(), row.begin(), row.end());
    packing.bounds.push_back(static_cast<int64_t>(packing.items.size()));
  }
  return packing;
}

}  // namespace megasbp

void register_packing(py::module_ &module) {
  using megasbp::IndexArray;
  module.def(
      "pack_best_fit",
      [](const IndexArray &lengths, int64_t capacity) {
        megasbp::Packing packing;
        {
          py::gil_scoped_release release;
          packing = megasbp::pack_best_fit(lengths.data(), lengths.size(), capacity);
        }
        return py::make_tuple(IndexArray(static_cast<py::ssize_t>(packing.bounds.size()), packing.bounds.data()),
                              IndexArray(static_cast<py::ssize_t>(packing.items.size()), packing.items.data()));
      },
      py::arg("lengths"), py::arg("capacity"));
}
