"""AdamW by apex against torch's, with a stand-in that does on the CPU what apex' kernel does on a GPU."""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from training_world import RaggedSource, initial_model, model_config, training_config

from megasbp.parallel.runtime import Runtime
from megasbp.training.apex_adamw import ApexAdamW, apex_problem
from megasbp.training.gradients import accumulate_gradients
from megasbp.training.optimizer import build_optimizer, optimizer_step, set_update_count


class FusedAdam(torch.optim.Optimizer):
    """Of apex's arguments, state and order of work (its commit 004da4e), capturable, in plain operations."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float, capturable: bool):
        assert capturable
        super().__init__(params, {"lr": torch.tensor(lr), "betas": betas, "eps": eps, "weight_decay": 0.0})
        self._dummy_overflow_buf = torch.zeros(1, dtype=torch.int32)

    @torch.no_grad()
    def step(self, grad_scaler: Any = None) -> None:
        for group in self.param_groups:
            group["step"] += (self._dummy_overflow_buf != 1).to(torch.int32)
            device = group["params"][0].device
            self._dummy_overflow_buf.copy_(grad_scaler._check_inf_per_device(self)[device])
            inverse = grad_scaler._get_scale_async().double().reciprocal().float()
            if self._dummy_overflow_buf == 1:
                continue
            (beta1, beta2), step = group["betas"], group["step"].item()
            for part in group["params"]:
                gradient, state = part.grad * inverse, self.state[part]
                state["exp_avg"].mul_(beta1).add_(gradient, alpha=1 - beta1)
                state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                denominator = (state["exp_avg_sq"] / (1 - beta2**step)).sqrt() + group["eps"]
                update = state["exp_avg"] / (1 - beta1**step) / denominator + group["weight_decay"] * part
                part.sub_(group["lr"] * update)


@pytest.fixture
def apex(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizers = ModuleType("apex.optimizers")
    optimizers.FusedAdam = FusedAdam
    monkeypatch.setitem(sys.modules, "apex", ModuleType("apex"))
    monkeypatch.setitem(sys.modules, "apex.optimizers", optimizers)


def parameters_after(kind: str, broken: int | None, updates: int = 0) -> dict[str, torch.Tensor]:
    """Four steps, the loss of one of them infinite."""
    runtime, batch = Runtime.start(), RaggedSource(1).batch(np.arange(8))
    # Groups with rates of their own, by µP.
    model = initial_model(model_config(mup_base_width=8), runtime)
    optimizer = build_optimizer(model, training_config(adamw=kind, epsilon=1e-4))
    assert isinstance(optimizer, ApexAdamW) == (kind == "apex")
    set_update_count(optimizer, updates)
    for step in range(4):
        nats = accumulate_gradients(model, batch, 8, batch.valid_tokens, runtime.device)
        if step == broken:
            nats = torch.full_like(nats, torch.inf)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizer_step(optimizer, 0.01 * (step + 1), nats, batch.valid_tokens, 1.0, runtime)
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name]) == (step == broken), (step, name)
            assert parameter.grad is None
    found = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        found |= {
            f"{moment} of {name}": optimizer.state[parameter][moment] for moment in ("exp_avg", "exp_avg_sq")
        }
    return found


@pytest.mark.parametrize(("broken", "updates"), [(None, 0), (2, 0), (None, 5)])
def test_apex_updates_as_torch_does(apex: None, broken: int | None, updates: int) -> None:
    expected, found = (parameters_after(kind, broken, updates) for kind in ("torch", "apex"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        # The same fp32 arithmetic in another order, through four steps.
        assert (found[name] - tensor).norm() < 1e-5 * tensor.norm(), name


def test_without_a_gpu_or_without_apex_it_is_refused() -> None:
    said = apex_problem(torch.device("cpu"))
    assert said == "training.adamw 'apex' needs a CUDA GPU; set training.adamw to 'torch'"
    assert "apex.optimizers" not in sys.modules
    said = apex_problem(torch.device("cuda"))
    assert said is not None and "built from its repository" in said
