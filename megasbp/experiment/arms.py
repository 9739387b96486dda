"""The arms of an experiment: what each is trained on, and which comparison isolates what.

The one place that describes them: recipes, plans, stages, results and the report read it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Arm = Literal["baseline", "sbp", "self_samples", "random_pairs", "continuation", "oracle"]
# Who wrote an arm's synthetic text: a synthesizer, by the pairs it was tuned on, or the untuned baseline,
# which is given no seed document.
Writer = Literal["true", "random", "continuation", "untuned"]


@dataclass(frozen=True)
class Comparison:
    """What `treatment` gains over `reference`; `hypothesis` numbers those fixed before the run."""

    treatment: Arm
    reference: Arm
    hypothesis: str = ""

    @property
    def name(self) -> str:
        """Its key in the results, e.g. "H1 sbp vs baseline"."""
        return f"{self.hypothesis} {self.treatment} vs {self.reference}".lstrip()


@dataclass(frozen=True)
class ArmKind:
    """One arm.

    Attributes:
        title: as the report prints it.
        trained_on: its text.
        isolates: what `comparison` tells.
        comparison: None for the baseline.
        writer: of its synthetic text; None for an arm without.
    """

    title: str
    trained_on: str
    isolates: str
    comparison: Comparison | None = None
    writer: Writer | None = None


# In the order of the report.
ARMS: dict[str, ArmKind] = {
    "baseline": ArmKind(
        "Baseline",
        "the unique text, repeated to fill the budget",
        "the reference: repetition alone",
    ),
    "sbp": ArmKind(
        "SBP",
        "synthetic text once, the unique text repeated for the rest",
        "whether the method pays",
        Comparison("sbp", "baseline", "H1"),
        writer="true",
    ),
    "self_samples": ArmKind(
        "Self-samples",
        "as SBP, but the untuned baseline wrote the text, without seed documents",
        "what pairs add to plain self-distillation, a model trained on its own text",
        Comparison("sbp", "self_samples", "H2"),
        writer="untuned",
    ),
    "random_pairs": ArmKind(
        "Random pairs",
        "as SBP, but the synthesizer was tuned on unrelated pairs",
        "what the relation within a pair adds to tuning on pairs",
        Comparison("sbp", "random_pairs", "H3"),
        writer="random",
    ),
    "continuation": ArmKind(
        "Continuation",
        "as SBP, but the synthesizer was tuned on beginnings of documents and what follows them",
        "what relations between documents add to more conditional training",
        Comparison("sbp", "continuation"),
        writer="continuation",
    ),
    "oracle": ArmKind(
        "Oracle",
        "more unique text instead of repetition",
        "what more real text would bring",
        Comparison("oracle", "baseline"),
    ),
}
# The arms of a recipe that names none; the others are for those who ask.
DEFAULT_ARMS: tuple[Arm, ...] = ("baseline", "sbp", "random_pairs", "oracle")


def comparisons() -> list[Comparison]:
    """Every comparison, in the order of the arms."""
    return [kind.comparison for kind in ARMS.values() if kind.comparison is not None]


def written_arms(arms: Iterable[str]) -> list[str]:
    """Those with synthetic text, in the order given."""
    return [arm for arm in arms if ARMS[arm].writer is not None]


def is_seeded(arm: str) -> bool:
    """Whether the writer of an arm's synthetic text reads a seed document first."""
    return ARMS[arm].writer not in {None, "untuned"}
