"""Which arms are compared, declared before anything is trained, and what the comparisons found."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from megasbp.experiment.arms import Comparison, comparisons
from megasbp.experiment.budget import EQUAL_FLOPS_ARMS
from megasbp.experiment.statistics.intervals import contrast
from megasbp.experiment.statistics.losses import HeldOutLosses
from megasbp.experiment.statistics.multiplicity import holm
from megasbp.experiment.statistics.multiplier import data_efficiency
from megasbp.experiment.statistics.shares import oracle_share

# The third view: SBP on the budget, and baselines that spend as many operations from end to end.
EQUAL_FLOPS = tuple(Comparison("sbp", arm) for arm in EQUAL_FLOPS_ARMS)


def declared(arms: Iterable[str]) -> list[Comparison]:
    """The comparisons of these arms: the hypotheses, every other arm with the baseline, and what else
    `arms.ARMS` compares. What needs an arm that is not there is left out.
    """
    present = list(arms)
    possible = [
        one for one in (*comparisons(), *EQUAL_FLOPS) if {one.treatment, one.reference} <= set(present)
    ]
    tested = [one for one in possible if one.hypothesis]
    compared = {one.treatment for one in tested if one.reference == "baseline"}
    others = [arm for arm in present if arm != "baseline" and arm not in compared]
    between_others = [one for one in possible if not one.hypothesis and one.reference != "baseline"]
    return tested + [Comparison(arm, "baseline") for arm in others] + between_others


def compare(losses: Mapping[str, HeldOutLosses], seed: int, resamples: int) -> dict[str, dict[str, Any]]:
    """Name -> the declared contrast with its interval and p-values, in the form of results.json.

    Args:
        losses: arm -> its held-out losses.
        seed, resamples: of the bootstrap.
    """
    found: dict[str, dict[str, Any]] = {}
    for one in declared(losses):
        estimate = contrast(losses[one.treatment], losses[one.reference], seed, resamples=resamples)
        about = {"treatment": one.treatment, "reference": one.reference, "role": one.role}
        found[one.name] = {**about, **asdict(estimate), "p_holm": None}
        if one.role == "descriptive":
            found[one.name]["p"] = None
    family = {name: entry["p"] for name, entry in found.items() if entry["role"] == "secondary"}
    for name, adjusted in holm(family).items():
        found[name]["p_holm"] = adjusted
    return found


def share_of_oracle(losses: Mapping[str, HeldOutLosses], seed: int, resamples: int) -> dict[str, Any] | None:
    """The share of the oracle's gain that SBP reaches; None without both arms."""
    if not {"sbp", "oracle"} <= losses.keys():
        return None
    arms = (losses["sbp"], losses["baseline"], losses["oracle"])
    return asdict(oracle_share(*arms, seed, resamples=resamples))


def data_efficiency_of_sbp(
    losses: Mapping[str, HeldOutLosses], unique_tokens: Mapping[str, int], seed: int, resamples: int
) -> dict[str, Any] | None:
    """What SBP is worth in unique text; None without it, or without a baseline on more text.

    Args:
        losses: arm -> its held-out losses.
        unique_tokens: baseline -> unique tokens that it is trained on; "baseline" is among them.
        seed, resamples: of the bootstrap.
    """
    if "sbp" not in losses or len(unique_tokens) < 2:
        return None
    sizes = {arm: tokens / unique_tokens["baseline"] for arm, tokens in unique_tokens.items()}
    found = data_efficiency(
        losses["sbp"], {size: losses[arm] for arm, size in sizes.items()}, seed, resamples=resamples
    )
    points = [
        {"arm": arm, "multiple": size, "unique_tokens": unique_tokens[arm]} for arm, size in sizes.items()
    ]
    return {**asdict(found), "points": points}
