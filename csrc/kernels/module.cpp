// megasbp.kernels._cpu: the kernels of a CPU. Knows nothing of the rest of the package.
#include "kernels.h"

PYBIND11_MODULE(_cpu, module) {
  using namespace megasbp::kernels;
  module.doc() = "Kernels of a CPU in fp32 and bf16; called by the files of megasbp.kernels, which check the tensors.";
  register_rms_norm(module);
  register_swiglu(module);
  register_rope(module);
  register_cross_entropy(module);
  register_attention(module);
  register_decode_attention(module);
  register_sample(module);
}
