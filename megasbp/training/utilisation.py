"""How much of a device is used: model FLOPs per second over its peak, and the memory it reached."""

import resource
import sys

import torch

from megasbp.model.config import ModelConfig
from megasbp.model.flops import flops_per_token

# Dense bf16 TFLOP/s of NVIDIA's data sheets, by what the device's name holds; the first that fits.
_PEAK_TFLOPS = {
    "A100": 312.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H200 NVL": 835.0,
    "H200": 989.0,
    "GH200": 989.0,
    "B200": 2250.0,
    "GB200": 2500.0,
}


def peak_tflops(device: torch.device) -> float | None:
    """Dense bf16 TFLOP/s of a device; None where it is not known, such as a CPU's."""
    if device.type != "cuda":
        return None
    # Longer names first: "GB200" also holds "B200".
    name = torch.cuda.get_device_name(device)
    for part in sorted(_PEAK_TFLOPS, key=len, reverse=True):
        if part in name:
            return _PEAK_TFLOPS[part]
    return None


class Utilisation:
    """Model FLOPs utilisation of a run (Chowdhery et al., arXiv 2204.02311, appendix B), in both conventions.

    Args:
        sequence_length: tokens of a row.
        tflops: peak of one rank's device; None for unknown.
        ranks: that share the work.
    """

    def __init__(self, model: ModelConfig, sequence_length: int, tflops: float | None, ranks: int) -> None:
        self._peak = None if tflops is None else tflops * 1e12 * ranks
        self._per_token = {
            "mfu_causal": flops_per_token(model, sequence_length, causal=True),
            "mfu_full": flops_per_token(model, sequence_length, causal=False),
        }

    def of(self, tokens_per_second: float) -> dict[str, float | None]:
        """ "mfu_causal" and "mfu_full" in [0, 1]; None where the peak is unknown."""
        peak = self._peak
        return {
            name: None if peak is None else round(flops * tokens_per_second / peak, 4)
            for name, flops in self._per_token.items()
        }


def peak_memory_bytes(device: torch.device) -> int:
    """The most bytes of tensors on a GPU since the last call; on a CPU the process' most resident bytes."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    # Bytes on macOS, KiB elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
