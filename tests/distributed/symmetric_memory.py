"""torch's operators on memory that GPUs share, on CPUs: one collective, one product, as torch itself has it
for devices without such memory. Imported for what it registers."""

import torch.distributed._symmetric_memory as symmetric
from torch import library

REGISTERED = library.Library("symm_mem", "IMPL")
REGISTERED.impl("fused_all_gather_matmul", symmetric._fused_all_gather_matmul_fallback, "CPU")
REGISTERED.impl("fused_matmul_reduce_scatter", symmetric._fused_matmul_reduce_scatter_fallback, "CPU")
