// A set of shingle hashes as one sorted array, which can be memory-mapped and shared between processes.
#include "shingles.h"

#include <utility>

namespace py = pybind11;
using namespace megasbp;

namespace {

class NgramSetBuilder {
 public:
  explicit NgramSetBuilder(std::int64_t width) : width_(checked_width(width)) {}

  void add(const Array<std::uint32_t> &tokens, const Array<std::int64_t> &offsets) {
    const Documents documents(tokens, offsets);
    py::gil_scoped_release unlocked;
    for (std::size_t i = 0; i < documents.count; ++i)
      for_each_shingle(documents.begin(i), documents.length(i), width_,
                       [&](std::uint64_t hash) { hashes_.push_back(hash); });
    // Merging only when the unsorted tail has outgrown the sorted part keeps the total cost at O(n log n).
    if (hashes_.size() - sorted_ > std::max(sorted_, std::size_t{1} << 20)) compact();
  }

  // The distinct hashes, ascending; the builder is empty afterwards.
  Array<std::uint64_t> finish() {
    {
      py::gil_scoped_release unlocked;
      compact();
      hashes_.shrink_to_fit();
    }
    sorted_ = 0;
    return to_numpy(std::exchange(hashes_, {}));
  }

 private:
  void compact() {
    const auto middle = hashes_.begin() + static_cast<std::ptrdiff_t>(sorted_);
    std::sort(middle, hashes_.end());
    std::inplace_merge(hashes_.begin(), middle, hashes_.end());
    hashes_.erase(std::unique(hashes_.begin(), hashes_.end()), hashes_.end());
    sorted_ = hashes_.size();
  }

  std::size_t width_;
  std::size_t sorted_ = 0;  // hashes_[0, sorted_) is ascending and distinct
  std::vector<std::uint64_t> hashes_;
};

// Interpolation search: the hashes are uniform, so the place of a key is known within about the square root of the
// range, and a few probes find it. Keys that are not uniform (a damaged file) only cost the bisection that follows.
bool contains_hash(const std::uint64_t *hashes, std::size_t count, std::uint64_t wanted) {
  std::size_t low = 0, high = count;
  std::uint64_t low_key = 0, high_key = ~std::uint64_t{0};
  for (int probe = 0; low < high; ++probe) {
    std::size_t middle = low + (high - low) / 2;
    if (probe < 8 && high - low > 8) {
      const double fraction = static_cast<double>(wanted - low_key) / static_cast<double>(high_key - low_key);
      middle = std::min(high - 1, low + static_cast<std::size_t>(fraction * static_cast<double>(high - low)));
    }
    const std::uint64_t key = hashes[middle];
    if (key == wanted) return true;
    if (key < wanted) {
      low = middle + 1;
      low_key = key;
    } else {
      high = middle;
      high_key = key;
    }
  }
  return false;
}

Array<bool> contains_shingles(const Array<std::uint64_t> &hashes, const Array<std::uint32_t> &tokens,
                              std::int64_t width_argument) {
  const std::size_t width = checked_width(width_argument);
  if (hashes.ndim() != 1 || tokens.ndim() != 1) throw std::invalid_argument("hashes and tokens must be one-dimensional");
  const auto count = static_cast<std::size_t>(tokens.size());
  Array<bool> result(static_cast<py::ssize_t>(count < width ? 0 : count - width + 1));
  bool *out = result.mutable_data();
  const std::uint64_t *set = hashes.data();
  const auto size = static_cast<std::size_t>(hashes.size());
  const std::uint32_t *data = tokens.data();
  py::gil_scoped_release unlocked;
  for_each_shingle(data, count, width, [&](std::uint64_t hash) { *out++ = contains_hash(set, size, hash); });
  return result;
}

}  // namespace

void register_ngram_index(py::module_ &module) {
  py::class_<NgramSetBuilder>(module, "NgramSetBuilder", "Collects the distinct shingle hashes; not thread-safe.")
      .def(py::init<std::int64_t>(), py::arg("width"))
      .def("add", &NgramSetBuilder::add, py::arg("tokens"), py::arg("offsets"))
      .def("finish", &NgramSetBuilder::finish, "uint64: the distinct hashes, ascending.");
  module.def("contains_shingles", &contains_shingles, py::arg("hashes"), py::arg("tokens"), py::arg("width"),
             "bool [max(n - width + 1, 0)]: is each shingle in the ascending array `hashes`?");
}
