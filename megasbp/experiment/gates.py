"""Gates: whether arms with synthetic text are worth training, asked before they are trained.

The claim needs a synthesizer that learned the relation, text that is new, and a baseline to which repetition
no longer brings anything. A closed gate says what to do; the recipe says whether the run goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from megasbp.errors import InputError

# The end of the budget over which a saturated baseline no longer improves.
_LAST_SHARE = 0.25


class GatesConfig(BaseModel):
    """The recipe's [gates] section.

    Attributes:
        closed: what a closed gate does: "warn" says so and goes on, "stop" ends the run before an arm with
            synthetic text is trained.
        maximum_excess_copy: share of the accepted text that may lie in a shingle of the corpus, beyond the
            same share of real held-out text.
        saturated_below: nats per token. A baseline is past its minimum when its validation loss has risen by
            at least this since, and saturated when the last quarter of its budget lowers that loss by less.
            The learning rate's decay lowers it too, so this errs towards "not saturated".
        maximum_diversity_loss: share of its distinct runs of four tokens that the text of a second round may
            have lost beside the first one's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    closed: Literal["warn", "stop"] = "warn"
    maximum_excess_copy: float = Field(0.05, ge=0, le=1)
    saturated_below: float = Field(0.01, gt=0)
    maximum_diversity_loss: float = Field(0.05, ge=0, lt=1)


@dataclass(frozen=True)
class Gate:
    """One gate as it was found.

    Attributes:
        name: "pair value", "copying", "baseline" or "second round".
        open: whether it is passed.
        finding: what was measured, in a sentence without a full stop.
        mend: what to do when it is closed; None when it is open.
    """

    name: str
    open: bool
    finding: str
    mend: str | None


class ClosedGate(InputError):
    """The recipe ends the run at a closed gate."""


def pair_value_gate(tables: Mapping[str, Mapping[str, Any]]) -> Gate:
    """Open when every interval of what a pair is worth lies above 0.

    Args:
        tables: name -> facts of `evaluation.pair_value`; empty where the pair source has no held-out pairs.
    """
    worths = {name: table["contrasts"]["worth"] for name, table in tables.items()}
    findings = [
        f"{name.replace('_', ' ')} {one['estimate']:+.4f} nats per token, "
        + ("too few for an interval" if one["low"] is None else f"{one['low']:+.4f} to {one['high']:+.4f}")
        for name, one in sorted(worths.items())
    ]
    is_open = bool(worths) and all(one["low"] is not None and one["low"] > 0 for one in worths.values())
    mend = (
        "the synthesizer shows no use of the relation: narrow the band of similarity (pairing), tune longer "
        "or at another rate (synthesizer), or measure on more held-out pairs (corpus.test)"
    )
    finding = f"a pair is worth {'; '.join(findings)}" if worths else "there are no held-out pairs to measure"
    return _gate("pair value", is_open, finding, mend)


def copying_gate(coverages: Mapping[str, float], real: float, limit: float) -> Gate:
    """Open when no arm's accepted text copies more of the corpus than real text does, beyond `limit`.

    Args:
        coverages: arm -> mean share of a synthetic document's tokens inside a shingle of the corpus.
        real: the same of real held-out text.
    """
    shares = ", ".join(f"{arm} {share:.1%}" for arm, share in sorted(coverages.items()))
    mend = (
        "the text is not new: lower pairing.maximum_similarity, synthesizer.maximum_epochs or "
        "synthesis.maximum_corpus_copy"
    )
    written = shares or "nothing was written"
    finding = f"share of the accepted text inside shingles of the corpus: {written}; of real text {real:.1%}"
    return _gate("copying", all(share - real <= limit for share in coverages.values()), finding, mend)


def baseline_gate(history: Sequence[Mapping[str, Any]], saturated_below: float) -> Gate:
    """Open when the baseline is past its validation minimum, or saturated.

    Args:
        history: its validations in order, each with "tokens" and "validation_loss".
        saturated_below: nats per token; a smaller rise since the minimum is noise.
    """
    last = history[-1]
    best = min(history, key=lambda point: point["validation_loss"])
    before = [point for point in history if point["tokens"] <= (1 - _LAST_SHARE) * last["tokens"]]
    mend = (
        "repeating real text still pays: raise budget.tokens_per_arm, or lower corpus.unique; synthetic text "
        "can hardly win before"
    )
    rise = last["validation_loss"] - best["validation_loss"]
    if rise >= saturated_below:
        share = best["tokens"] / last["tokens"]
        finding = f"the baseline is {rise:.4f} nats per token past its minimum, at {share:.0%} of the budget"
        return _gate("baseline", True, finding, mend)
    if not before:
        finding = "too few validations to see whether the baseline is saturated"
        return _gate("baseline", False, finding, "set training.validations to at least 4")
    fall = before[-1]["validation_loss"] - last["validation_loss"]
    change = "lowered" if fall >= 0 else "raised"
    finding = f"the last quarter of the budget {change} the baseline's loss by {abs(fall):.4f} nats per token"
    return _gate("baseline", fall < saturated_below, finding, mend)


def round_gate(first: Mapping[str, float], second: Mapping[str, float], limit: float) -> Gate:
    """Open when a second round has the better synthesizer, and text as diverse: the rule that stops.

    Args:
        first, second: of each round "pair_loss", nats per token of held-out targets given their seeds, and
            "distinct", distinct runs of four tokens per run, of texts of one size.
        limit: share of `distinct` that may be lost.
    """
    lost = 1 - second["distinct"] / first["distinct"]
    finding = (
        f"held-out pair loss {first['pair_loss']:.4f} in the first round, {second['pair_loss']:.4f} in the "
        f"second; distinct runs of four tokens {first['distinct']:.1%}, {second['distinct']:.1%}"
    )
    mend = (
        "another round does not pay: leave second_round out of budget.arms, or raise synthesis.temperature "
        "if only diversity was lost"
    )
    is_open = second["pair_loss"] < first["pair_loss"] and lost <= limit
    return _gate("second round", is_open, finding, mend)


def describe(gate: Gate) -> str:
    """The gate in a line."""
    state = "open" if gate.open else "closed"
    return f"gate {gate.name} {state}: {gate.finding}" + (f"; {gate.mend}" if gate.mend else "")


def require_open(gates: Sequence[Gate], config: GatesConfig, place: str) -> None:
    """Ends the run at a closed gate, if the recipe says so.

    Raises:
        ClosedGate: a gate is closed and `config.closed` is "stop".
    """
    closed = [describe(gate) for gate in gates if not gate.open]
    if closed and config.closed == "stop":
        raise ClosedGate(
            f"{place}: {'. '.join(closed)}. Set gates.closed to 'warn' to train the arms all the same"
        )


def _gate(name: str, is_open: bool, finding: str, mend: str) -> Gate:
    return Gate(name, is_open, finding, None if is_open else mend)
