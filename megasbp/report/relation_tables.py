"""The relation of texts to their seeds, as plain cells."""

from megasbp.report.formats import NOTHING, arm_name, arms_in_order, count, number, share
from megasbp.report.schema_parts import Interval
from megasbp.report.tables import Table
from megasbp.report.text_schema import Relation

REAL_NAMES = {"true": "True partner", "unrelated": "Any document"}


def kinds_in_order(relation: Relation) -> list[str]:
    """The arms, then real text."""
    arms = arms_in_order(name for name in relation.kinds if name not in REAL_NAMES)
    return [*arms, *(name for name in REAL_NAMES if name in relation.kinds)]


def kind_name(kind: str) -> str:
    """A kind of text as the report prints it."""
    return REAL_NAMES.get(kind) or arm_name(kind)


def relation_table(relation: Relation) -> Table:
    """Similarity to the seed, and how well texts find it among other documents."""
    kinds = [relation.kinds[kind] for kind in kinds_in_order(relation)]
    chance = relation.chance
    rows = [["Documents", *(count(kind.documents) for kind in kinds), NOTHING]]
    for name, words in (
        ("mean", "Mean similarity to the seed"),
        ("p5", "its 5% quantile"),
        ("p95", "its 95% quantile"),
    ):
        rows.append([words, *(number(kind.similarity.get(name), 3) for kind in kinds), NOTHING])
    rows += _interval_rows("Seed found first", [kind.rank_1 for kind in kinds], chance.rank_1)
    rows += _interval_rows("Seed among the first 10", [kind.rank_10 for kind in kinds], chance.rank_10)
    ranks = [number(kind.reciprocal_rank.estimate) for kind in kinds]
    rows.append(["Mean reciprocal rank", *ranks, number(chance.reciprocal_rank)])
    return Table(
        f"Does the text know its seed? Seeds found among {count(relation.candidates)} documents",
        ["", *(kind_name(kind) for kind in kinds_in_order(relation)), "Chance"],
        rows,
        "Intervals are over the seed documents. Partners of a seed in the pair table and passages of its own "
        "document are no candidates; other documents of its subject may be: true partners do not reach 100% "
        "either. A synthesizer that ignores its seed is at chance.",
    )


def _interval_rows(name: str, found: list[Interval], chance: float) -> list[list[str]]:
    bounds = [
        NOTHING if one.low is None or one.high is None else f"{share(one.low)} to {share(one.high)}"
        for one in found
    ]
    estimates = [share(one.estimate, 2) for one in found]
    # One label for all: they are of one seed's text.
    reach = next((f", {one.label}" for one in found if one.label), "")
    return [[name, *estimates, share(chance, 2)], [f"its interval{reach}", *bounds, NOTHING]]
