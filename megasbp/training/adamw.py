"""AdamW that skips a step when the device says so."""

import torch

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW(torch.optim.AdamW):
    """Fused AdamW (Loshchilov and Hutter, arXiv 1711.05101), one pass over the state of each parameter.

    The fused kernels read `found_inf` (0-d, on the device): 1 leaves parameters, moments and step counts
    untouched. So a step is skipped without the host knowing.
    """

    found_inf: torch.Tensor | None = None
    grad_scale: torch.Tensor | None = None
