"""What happens at which step: learning rate, validations, checkpoints, early stop. Pure functions."""

import math
from collections.abc import Sequence

from megasbp.training.config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """The rate of optimiser step `step`, 1 <= step <= steps.

    Linear from 0 (before the first step) to the peak at the last warm-up step; then constant, or a half
    cosine (Loshchilov and Hutter, arXiv 1608.03983) that reaches its minimum at the last step, or constant up
    to the last `decay_share` of the steps, in which it falls by the root of the way (Hägele et al.,
    arXiv 2405.18392).
    """
    warmup = round(config.warmup_share * steps)
    if step <= warmup:
        return config.learning_rate * step / warmup
    if config.schedule == "constant":
        return config.learning_rate
    start = warmup if config.schedule == "cosine" else max(warmup, steps - round(config.decay_share * steps))
    if step <= start:
        return config.learning_rate
    progress = (step - start) / (steps - start)
    height = (
        (1 + math.cos(math.pi * progress)) / 2 if config.schedule == "cosine" else 1 - math.sqrt(progress)
    )
    minimum = config.minimum_learning_rate_ratio
    return config.learning_rate * (minimum + (1 - minimum) * height)


def evenly_spaced(steps: int, count: int) -> list[int]:
    """`count` steps of 1..steps (all of them when there are fewer), evenly spaced, the last one `steps`.

    None for a count of 0.
    """
    return sorted({-(-steps * number // count) for number in range(1, count + 1)})


def best_step(history: Sequence[dict], until: int | None = None) -> int | None:
    """The step of the lowest validation loss, the first of equals; None before the first validation.

    Args:
        history: validations, each with "step" and "validation_loss".
        until: only those up to this step.
    """
    seen = [entry for entry in history if until is None or entry["step"] <= until]
    return min(seen, key=lambda entry: entry["validation_loss"])["step"] if seen else None


def patience_is_over(history: Sequence[dict], patience: int | None) -> bool:
    """Whether the last `patience` validations all failed to improve on the best one before them."""
    best = best_step(history)
    return patience is not None and sum(entry["step"] > (best or 0) for entry in history) >= patience


def retained_steps(
    scheduled: Sequence[int], step: int, keep: int, history: Sequence[dict], finished: bool
) -> set[int]:
    """The steps whose checkpoints stay once the one of `step` is written.

    The newest `keep` of the scheduled ones and `step` itself, and the best. Before the run is finished also
    the best as of each of those: resuming from an older checkpoint then still finds its best one.
    """
    newest = sorted({*(number for number in scheduled if number <= step), step})[-keep:]
    ends = [step] if finished else newest
    bests = {best_step(history, until) for until in ends}
    return {*newest, *(number for number in bests if number is not None)}
