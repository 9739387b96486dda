"""The verdict of a run in sentences that say plainly which way it went."""

from dataclasses import dataclass, field
from typing import Literal

from megasbp.report.formats import interval, multiplier_text, number, p_value, share, signed
from megasbp.report.schema import Contrast, OracleShare, Results

# Arm, its name, what a gain over it says, and what the lack of one leaves open.
_CONTROLS = (
    (
        "self_samples",
        "trained on the model's own unconditional samples",
        "SBP is more than self-distillation",
        "SBP is more than self-distillation",
    ),
    (
        "random_pairs",
        "tuned on random pairs",
        "the relation between documents helps",
        "the relation between documents matters",
    ),
)


@dataclass(frozen=True)
class Verdict:
    """What the run found.

    Attributes:
        outcome: of H1: SBP against the baseline.
        finding: what was found, without a full stop.
        evidence: interval, p-values and reach in brackets; empty when nothing was measured.
        details: a sentence each on the controls, the oracle, and how far the interval speaks.
    """

    outcome: Literal["won", "undecided", "lost", "unmeasured"]
    finding: str
    evidence: str = ""
    details: list[str] = field(default_factory=list)

    @property
    def headline(self) -> str:
        """The verdict in one sentence, with its interval."""
        return f"{self.finding} {self.evidence}".rstrip() + "."


def find_contrast(results: Results, treatment: str, reference: str) -> Contrast | None:
    """The contrast of two arms, if the run has it."""
    for one in results.contrasts.values():
        if (one.treatment, one.reference) == (treatment, reference):
            return one
    return None


def verdict(results: Results) -> Verdict:
    """The run's answer to H1, said plainly whichever way it went."""
    first = find_contrast(results, "sbp", "baseline")
    if first is None:
        details = [detail for detail in [_left_out(results)] if detail]
        return Verdict("unmeasured", "This run did not compare SBP with the baseline", details=details)
    outcome: Literal["won", "undecided", "lost"]
    if first.low > 0:
        outcome = "won"
        finding = f"SBP beat the baseline: it saves {number(first.estimate)} nats per byte of held-out text"
    elif first.high < 0:
        outcome = "lost"
        worse = number(-first.estimate)
        finding = f"SBP did not beat the baseline: it is worse by {worse} nats per byte of held-out text"
    else:
        outcome = "undecided"
        finding = (
            f"SBP did not beat the baseline: the difference of {signed(first.estimate)} nats per byte of "
            f"held-out text is not significant, it may be chance"
        )
    controls = [_control(results, *one) for one in _CONTROLS]
    details = [
        _left_out(results),
        _power(first) if outcome == "undecided" else "",
        _best_reading(first),
        *controls,
        _oracle(results),
        _data_efficiency(results),
        _equal_flops(results),
        _gates(results),
        _reach(first),
    ]
    return Verdict(outcome, finding, _evidence(first), [detail for detail in details if detail])


def _stands(contrast: Contrast) -> bool:
    """Whether a difference is still significant when corrected for the number of secondary hypotheses."""
    return contrast.p_holm is None or contrast.p_holm <= 1 - contrast.level


def _evidence(contrast: Contrast) -> str:
    parts = [f"{share(contrast.level, 0)} interval {interval(contrast.low, contrast.high, sign=True)}"]
    if contrast.p is not None:
        corrected = "" if contrast.p_holm is None else f", corrected {_p_phrase(contrast.p_holm)}"
        parts.append(f"p {_p_phrase(contrast.p)}{corrected}")
    parts.append(contrast.label)
    return f"({'; '.join(parts)})"


def _p_phrase(value: float) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def _left_out(results: Results) -> str:
    """Seeds that are in no comparison, and why."""
    if not results.left_out:
        return ""
    named = "; ".join(
        f"seed {seed} ({', '.join(f'{one.stage} diverged: {one.finding}' for one in found)})"
        for seed, found in results.left_out.items()
    )
    return f"Left out of every comparison, with all arms: {named}."


def _power(first: Contrast) -> str:
    """What gain the run would have found."""
    if first.detectable is None:
        return ""
    return (
        f"The run would find a gain of {number(first.detectable)} nats per byte with 80% power; the interval "
        f"leaves gains of up to {signed(first.high)} possible."
    )


def _best_reading(first: Contrast) -> str:
    """What the best-validation weights say, where it is not what the end of the budget says."""
    best = first.best_validation
    if best is None or (best.low > 0, best.high < 0) == (first.low > 0, first.high < 0):
        return ""
    bounds = f"{share(best.level, 0)} interval {interval(best.low, best.high, sign=True)}"
    finding = "ahead" if best.low > 0 else "behind" if best.high < 0 else "not significantly different"
    return (
        f"With the best weights on validation data SBP is {finding}: {signed(best.estimate)} nats per byte "
        f"({bounds}). The end of the budget decides."
    )


def _control(results: Results, arm: str, name: str, helps: str, matters: str) -> str:
    control = find_contrast(results, "sbp", arm)
    if control is None:
        return ""
    change = f"{signed(control.estimate)} nats per byte {_evidence(control)}"
    if control.low > 0 and _stands(control):
        gains = f"Against the control {name} SBP gains {change}"
        # The interval of one seed does not hold what rounding alone changes from run to run (docs/log.md).
        return (
            f"{gains}: {helps}."
            if len(control.seeds) > 1
            else f"{gains}; whether {matters}, one seed cannot say."
        )
    if control.high < 0 and _stands(control):
        return f"SBP is worse than the control {name}: {change}."
    return f"Against the control {name} the difference is {change}: this run does not show that {matters}."


def _oracle(results: Results) -> str:
    gain = find_contrast(results, "oracle", "baseline")
    if gain is None:
        return ""
    sentence = (
        f"The oracle, with more unique text, gains {signed(gain.estimate)} nats per byte {_evidence(gain)}."
    )
    return f"{sentence} {share_sentence(results.oracle_share)}" if results.oracle_share else sentence


def share_sentence(found: OracleShare) -> str:
    """The share of the oracle's gain in words; no number where the Fieller set gives none."""
    if found.kind == "interval":
        bounds = f"{share(found.level, 0)} set {share(found.low, 0)} to {share(found.high, 0)}"
        return f"SBP reaches {share(found.estimate, 0)} of the oracle's gain ({bounds})."
    if found.kind == "no gain":
        return "The oracle is worse than the baseline here, so there is no gain to take a share of."
    reason = "the oracle's own gain is not significant"
    if found.kind == "line":
        return f"The share of the oracle's gain is unbounded (every value fits the data): {reason}."
    gap = f"only shares between {share(found.low, 0)} and {share(found.high, 0)} are excluded"
    return f"The share of the oracle's gain is unbounded ({gap}): {reason}."


def _data_efficiency(results: Results) -> str:
    found = results.data_efficiency
    if found is None:
        return ""
    worth = multiplier_text(found)
    if found.kind == "below":
        return f"In unique text SBP is worth {worth}: the baseline on that text alone is ahead."
    return f"In unique text SBP is worth {worth}: the baseline needs so much of it for the same loss."


def _equal_flops(results: Results) -> str:
    """The third view in one sentence, both readings, with best weights: the longer training may overfit."""
    readings = []
    for arm, words in (
        ("baseline_flops_owned", "the initial model owned"),
        ("baseline_flops_counted", "the initial model counted"),
    ):
        gain = find_contrast(results, "sbp", arm)
        if gain is not None and gain.best_validation is not None:
            best = gain.best_validation
            bounds = interval(best.low, best.high, sign=True)
            readings.append(f"{signed(best.estimate)} nats per byte ({bounds}) with {words}")
    if not readings:
        return ""
    return (
        "Over a baseline of as many operations from end to end, both with their best weights on validation "
        f"data, SBP gains {', '.join(readings)}."
    )


def _gates(results: Results) -> str:
    closed = dict.fromkeys(gate.name for gates in results.gates.values() for gate in gates if not gate.open)
    if not closed:
        return ""
    return (
        f"Before the arms were trained a gate was closed ({', '.join(closed)}): the table of gates says why."
    )


def _reach(contrast: Contrast) -> str:
    if len(contrast.seeds) > 1:
        return ""
    return (
        "Conditional on this run: with one seed the interval covers the choice of test documents, "
        "not what another seed would have given."
    )
