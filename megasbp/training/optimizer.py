"""AdamW, what it decays, and one step that skips itself when something is not finite."""

import torch
from torch import nn

from megasbp.model.layers import Embedding
from megasbp.model.mup import rate_multiplier
from megasbp.model.transformer import Transformer
from megasbp.parallel.pipeline import Pipeline
from megasbp.parallel.runtime import Runtime
from megasbp.parallel.shards import local_tensor, square_sum
from megasbp.training.adamw import MOMENTS, AdamW
from megasbp.training.apex_adamw import ApexAdamW
from megasbp.training.config import TrainingConfig


def decay_groups(model: nn.Module) -> dict[str, list[str]]:
    """Names of the parameters with weight decay ("decayed") and without ("kept").

    Kept are vectors (norms) and embedding tables. A row of a table has a gradient only when its token
    occurs, but decay would shrink it at every step: rare tokens would vanish, the more so with the strong
    decay that many epochs want. A tied table is also the head, and is kept for the same reason.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, Embedding)}
    groups: dict[str, list[str]] = {"decayed": [], "kept": []}
    for name, parameter in model.named_parameters():
        kept = parameter.ndim < 2 or id(parameter) in tables
        groups["kept" if kept else "decayed"].append(name)
    return groups


def build_optimizer(model: Transformer | Pipeline, config: TrainingConfig) -> AdamW:
    """The optimiser of a rank's part of a model, with its state in place (zeros), ready to be loaded into.

    A tied table's copy, on the last stage of a pipeline, is updated as the table is, in a group of its own
    ("copy"), which the gradient norm leaves out.
    """
    parameters = dict(model.named_parameters())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for decay, names in zip((config.weight_decay, 0.0), decay_groups(model).values(), strict=True):
        for name in names:
            multiplier = rate_multiplier(model.config, name)
            groups.setdefault((multiplier, decay / multiplier), []).append(parameters[name])
    options = [
        {"params": members, "weight_decay": decay, "rate_multiplier": multiplier, "copy": False}
        for (multiplier, decay), members in groups.items()
    ]
    if isinstance(model, Pipeline) and model.tied is not None and model.tied.copy is not None:
        # Tables are not decayed.
        copy = model.tied.copy
        options.append({"params": [copy], "weight_decay": 0.0, "rate_multiplier": 1.0, "copy": True})
    kind = ApexAdamW if config.adamw == "apex" else AdamW
    optimizer = kind(
        options,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=True,
    )
    for parameter in (member for group in optimizer.param_groups for member in group["params"]):
        state = optimizer.state[parameter]
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        for moment in MOMENTS:
            state[moment] = torch.zeros_like(parameter, requires_grad=False)
    return optimizer


def set_update_count(optimizer: AdamW, updates: int) -> None:
    """Continues the bias correction after `updates` updates."""
    for state in optimizer.state.values():
        state["step"].fill_(updates)


@torch.no_grad()
def optimizer_step(
    optimizer: AdamW,
    rate: float,
    nats: torch.Tensor,
    valid_tokens: int,
    clip: float,
    runtime: Runtime,
) -> torch.Tensor:
    """Clips the gradients by their global norm and updates the parameters.

    When the loss or the norm is not finite the update is skipped, on every rank alike. One collective of two
    numbers; nothing waits for the device.

    Args:
        nats: this rank's summed loss, scalar; 0 on ranks without a pipeline's last stage.
        valid_tokens: of the global batch.

    Returns:
        float64 [2] on the device: mean loss in nats per token and gradient norm before clipping, of the
        whole global batch.
    """
    gradients: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    for group in optimizer.param_groups:
        found = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
        gradients[group["copy"]] += found
    # Ranks that share each matrix have the same loss.
    share = nats.to(torch.float64) / runtime.tensor_ranks
    totals = runtime.sum(torch.stack([share, square_sum(gradients[False])]))
    loss, norm = totals[0] / valid_tokens, totals[1].sqrt()
    finite = torch.isfinite(loss) & torch.isfinite(norm)
    scale = torch.clamp(clip / (norm + 1e-6), max=1.0).to(torch.float32)
    torch._foreach_mul_([local_tensor(gradient) for found in gradients.values() for gradient in found], scale)
    optimizer.found_inf = (~finite).to(torch.float32)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_multiplier"]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return torch.stack([loss, norm])


def follow_table(model: Transformer | Pipeline, optimizer: AdamW | None = None) -> None:
    """Makes a tied table's copy equal to the table, with its moments; all ranks call it.

    To be called after weights were initialised or loaded.
    """
    if not isinstance(model, Pipeline) or model.tied is None:
        return
    tied = model.tied
    tied.follow(*(_with_moments(parameter, optimizer) for parameter in (tied.table, tied.copy)))


def _with_moments(parameter: nn.Parameter | None, optimizer: AdamW | None) -> list[torch.Tensor]:
    if parameter is None:
        return []
    state = optimizer.state[parameter] if optimizer is not None else {}
    return [parameter.detach(), *(state[moment] for moment in MOMENTS if moment in state)]
