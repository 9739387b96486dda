"""The verdict of a run in sentences that say plainly which way it went."""

from dataclasses import dataclass, field
from typing import Literal

from megasbp.report.formats import interval, number, p_value, share, signed
from megasbp.report.schema import Contrast, OracleShare, Results

# Controls that SBP is compared with: the arm, its name in a sentence, what a gain over it shows, and what is
# not shown without one.
_CONTROLS = (
    (
        "self_samples",
        "the control that wrote without seed documents",
        "SBP is more than self-distillation",
        "SBP is more than self-distillation",
    ),
    (
        "random_pairs",
        "the control tuned on random pairs",
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
        return Verdict("unmeasured", "This run did not compare SBP with the baseline")
    outcome: Literal["won", "undecided", "lost"]
    if first.low > 0 and _stands(first):
        outcome = "won"
        finding = f"SBP beat the baseline: it saves {number(first.estimate)} nats per byte of held-out text"
    elif first.high < 0:
        outcome = "lost"
        worse = number(-first.estimate)
        finding = f"SBP did not beat the baseline: it is worse by {worse} nats per byte of held-out text"
    else:
        outcome = "undecided"
        reason = (
            "the correction for several hypotheses leaves it open" if first.low > 0 else "it may be chance"
        )
        finding = (
            f"SBP did not beat the baseline: the difference of {signed(first.estimate)} nats per byte of "
            f"held-out text is not significant, {reason}"
        )
    controls = [_control(results, *control) for control in _CONTROLS]
    details = [*controls, _oracle(results), _reach(first)]
    return Verdict(outcome, finding, _evidence(first), [detail for detail in details if detail])


def _stands(contrast: Contrast) -> bool:
    """Whether a difference is still significant when corrected for the number of hypotheses."""
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


def _control(results: Results, arm: str, control: str, helps: str, matters: str) -> str:
    """What SBP gains over a control.

    Args:
        control: the arm in words.
        helps, matters: what a gain shows, and what no gain does not show.
    """
    found = find_contrast(results, "sbp", arm)
    if found is None:
        return ""
    change = f"{signed(found.estimate)} nats per byte {_evidence(found)}"
    if found.low > 0 and _stands(found):
        return f"Against {control} SBP gains {change}: {helps}."
    if found.high < 0:
        return f"SBP is worse than {control}: {change}."
    return f"Against {control} the difference is {change}: this run does not show that {matters}."


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


def _reach(contrast: Contrast) -> str:
    if len(contrast.seeds) > 1:
        return ""
    return (
        "Conditional on this run: with one seed the interval covers the choice of test documents, "
        "not what another seed would have given."
    )
