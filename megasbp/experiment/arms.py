"""The arms of an experiment: what each is trained on, and which comparison isolates what.

The one place that describes them: recipes, plans, stages, results and the report read it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Arm = Literal[
    "baseline",
    "sbp",
    "self_samples",
    "random_pairs",
    "continuation",
    "in_context",
    "seed_packing",
    "second_round",
    "oracle",
]
# Who wrote an arm's synthetic text: a synthesizer, by the pairs it was tuned on; one tuned on true pairs from
# the model of sbp instead of the baseline; or the untuned baseline, which is given no seed document.
Writer = Literal["true", "random", "continuation", "second", "untuned"]
# What fills the share of an arm that is not plain unique text: synthetic documents, rows of a real document
# with one of its neighbours, or rows of a synthetic document with its seed.
Share = Literal["synthetic", "neighbours", "seeded"]
# Of a comparison: the one hypothesis that is tested at the full level, one of the family that Holm's method
# corrects, or an estimate with its interval that tests nothing.
Role = Literal["primary", "secondary", "descriptive"]


@dataclass(frozen=True)
class Comparison:
    """What `treatment` gains over `reference`.

    Attributes:
        treatment, reference: arms.
        hypothesis: its number in docs/preregistration.md; empty for a comparison that tests none.
    """

    treatment: str
    reference: str
    hypothesis: str = ""

    @property
    def name(self) -> str:
        """Its key in the results, e.g. "H1 sbp vs baseline"."""
        return f"{self.hypothesis} {self.treatment} vs {self.reference}".lstrip()

    @property
    def role(self) -> Role:
        """H1 is primary, the other hypotheses are secondary."""
        if not self.hypothesis:
            return "descriptive"
        return "primary" if self.hypothesis == "H1" else "secondary"


@dataclass(frozen=True)
class ArmKind:
    """One arm.

    Attributes:
        title: as the report prints it.
        trained_on: its text.
        isolates: what `comparison` tells.
        comparison: None for the baseline.
        share: of its tokens, what is not the plain unique text (or the oracle's).
        writer: of the synthetic text that is written for this arm; None where none is.
    """

    title: str
    trained_on: str
    isolates: str
    comparison: Comparison | None = None
    share: Share | None = None
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
        share="synthetic",
        writer="true",
    ),
    "self_samples": ArmKind(
        "Self samples",
        "as SBP, but the untuned baseline wrote the text, without seed documents",
        "what pairs add to plain self-distillation, a model trained on its own text",
        Comparison("sbp", "self_samples", "H2"),
        share="synthetic",
        writer="untuned",
    ),
    "random_pairs": ArmKind(
        "Random pairs",
        "as SBP, but the synthesizer was tuned on unrelated pairs",
        "what the relation within a pair adds to tuning on pairs",
        Comparison("sbp", "random_pairs", "H3"),
        share="synthetic",
        writer="random",
    ),
    "continuation": ArmKind(
        "Continuation",
        "as SBP, but the synthesizer was tuned on beginnings of documents and what follows them",
        "what relations between documents add to more conditional training",
        Comparison("sbp", "continuation"),
        share="synthetic",
        writer="continuation",
    ),
    "in_context": ArmKind(
        "In context",
        "as SBP, but its synthetic share is real documents, each in one window with a neighbour",
        "what generating adds to seeing related documents together",
        Comparison("sbp", "in_context"),
        share="neighbours",
    ),
    "seed_packing": ArmKind(
        "Seed packing",
        "the synthetic text of SBP, each document in one window with its seed",
        "what seeing a synthetic document beside its seed adds",
        Comparison("seed_packing", "sbp"),
        share="seeded",
    ),
    "second_round": ArmKind(
        "Second round",
        "as SBP, but the synthesizer was tuned from the model of SBP, and wrote anew",
        "what another round of the method adds",
        Comparison("second_round", "sbp"),
        share="synthetic",
        writer="second",
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


def share_of(arm: str) -> Share | None:
    """What fills an arm's share; None for one that reads plain text alone, as every baseline does."""
    return ARMS[arm].share if arm in ARMS else None


def writer_of(arm: str) -> Writer | None:
    """Who writes an arm's synthetic text; None where none is written for it."""
    return ARMS[arm].writer if arm in ARMS else None


def written_arms(arms: Iterable[str]) -> list[str]:
    """Those for which synthetic text is written, in the order given."""
    return [arm for arm in arms if writer_of(arm) is not None]


def first_written_arms(arms: Iterable[str]) -> list[str]:
    """Of these, those whose text is there before any arm with synthetic text is trained."""
    return [arm for arm in written_arms(arms) if writer_of(arm) != "second"]


def is_seeded(arm: str) -> bool:
    """Whether the writer of an arm's synthetic text reads a seed document first."""
    return writer_of(arm) not in {None, "untuned"}
