// megasbp._C: the parts of the package that touch every token, in C++17.
// Each source file registers its own classes; this file only lists them.
#include <pybind11/pybind11.h>

namespace py = pybind11;

void register_indexed_dataset(py::module_ &module);
void register_order(py::module_ &module);
void register_mixture(py::module_ &module);
void register_packing(py::module_ &module);
void register_pairs(py::module_ &module);
void register_samples(py::module_ &module);
void register_shingles(py::module_ &module);
void register_json_lines(py::module_ &module);
void register_candidates(py::module_ &module);
void register_near_rows(py::module_ &module);
void register_similarity(py::module_ &module);

PYBIND11_MODULE(_C, module) {
  module.doc() = "C++ core of megasbp: indexed dataset, sample order, batches, shingles, similarities.";
  module.attr("compiler") = __VERSION__;  // for `megasbp doctor`
  register_indexed_dataset(module);
  register_order(module);
  register_mixture(module);
  register_packing(module);
  register_pairs(module);
  register_samples(module);
  register_shingles(module);
  register_json_lines(module);
  register_candidates(module);
  register_near_rows(module);
  register_similarity(module);
}
