"""AdamW by NVIDIA's apex: several tensors a kernel launch, on GPUs."""

from typing import Any

import torch
from torch import nn

from megasbp.parallel.shards import local_tensor
from megasbp.training.adamw import MOMENTS, AdamW


def apex_problem(device: torch.device) -> str | None:
    """Why apex cannot be used here, and the mend; None where it can."""
    mend = "set training.adamw to 'torch'"
    if device.type != "cuda":
        return f"training.adamw 'apex' needs a CUDA GPU; {mend}"
    try:
        # The package of that name on PyPI is another one.
        from apex.optimizers import FusedAdam  # noqa: F401
    except ImportError:
        return (
            "training.adamw 'apex' needs NVIDIA's apex, built from its repository with its CUDA extensions; "
            f"install it, or {mend}"
        )
    return None


class ApexAdamW(AdamW):
    """`AdamW` whose step is that of `apex.optimizers.FusedAdam`.

    State and groups lie here, as torch has them, and checkpoints see no difference; apex works on this rank's
    parts of the same memory. The number of updates is read once, before the first step.
    """

    _apex: Any = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update, or none where `found_inf` is 1; nothing waits for the device."""
        assert closure is None and self.found_inf is not None
        if self._apex is None:
            self._apex = self._make()
        for group, parts in zip(self.param_groups, self._apex.param_groups, strict=True):
            parts["lr"] = torch.full((), group["lr"], dtype=torch.float32, device=self.found_inf.device)
            for parameter, part in zip(group["params"], parts["params"], strict=True):
                part.grad = None if parameter.grad is None else local_tensor(parameter.grad)
        self._apex.step(grad_scaler=_Verdict(self.found_inf))
        for parts in self._apex.param_groups:
            for part in parts["params"]:
                part.grad = None

    def _make(self) -> Any:
        from apex.optimizers import FusedAdam

        groups: list[dict[str, Any]] = []
        for group in self.param_groups:
            parts = [nn.Parameter(local_tensor(parameter.detach())) for parameter in group["params"]]
            groups.append({"params": parts, "weight_decay": group["weight_decay"]})
        first = self.param_groups[0]
        # Capturable: learning rate, step and verdict are read on the device.
        apex = FusedAdam(groups, lr=first["lr"], betas=first["betas"], eps=first["eps"], capturable=True)
        for group, parts in zip(self.param_groups, apex.param_groups, strict=True):
            for parameter, part in zip(group["params"], parts["params"], strict=True):
                state = self.state[parameter]
                apex.state[part].update({moment: local_tensor(state[moment]) for moment in MOMENTS})
                parts["step"] = state["step"].to(torch.int32).reshape(1)
        return apex


class _Verdict:
    """What apex asks of a gradient scaler: whether to skip the step, and a scale, which is 1 here."""

    def __init__(self, found_inf: torch.Tensor) -> None:
        self._found_inf = found_inf.reshape(1)

    def _check_inf_per_device(self, optimizer: Any) -> dict[torch.device, torch.Tensor]:
        return {self._found_inf.device: self._found_inf}

    def _get_scale_async(self) -> torch.Tensor:
        return torch.ones_like(self._found_inf)
