"""The topics of the synthetic text, as plain cells."""

from megasbp.report.formats import NOTHING, arm_name, arms_in_order, count, number, share
from megasbp.report.tables import Table
from megasbp.report.text_schema import TopicShift


def topics_table(shift: TopicShift) -> Table:
    """Divergence of each set from the unique text, and the topics at its extremes."""
    rows = [
        [
            _name(name),
            count(shift.sets[name].documents),
            number(shift.sets[name].divergence),
            count(shift.sets[name].lost),
            count(shift.sets[name].over_represented),
        ]
        for name in _in_order(shift)
    ]
    null = f"{number(shift.null.mean)} (95%: {number(shift.null.p95)})"
    rows.append(["No shift: unique text against itself", NOTHING, null, NOTHING, NOTHING])
    return Table(
        f"Topics: {count(shift.topics)} groups of the unique text",
        ["Text", "Documents", "Divergence, bits", "Topics lost", "Over-represented"],
        rows,
        f"Jensen-Shannon divergence from the unique text, of samples of {count(shift.size)} documents. Lost: "
        "without a document. Over-represented: at least twice the share. Both where chance would not do it.",
        total_rows=1,
    )


def shifted_topics_table(shift: TopicShift) -> Table:
    """The topics whose share differs most."""
    sets = ["unique", *_in_order(shift)]
    rows = [[one.example, *(share(one.shares.get(name)) for name in sets)] for one in shift.most_shifted]
    header = ["Topic, by its most typical document", *(_name(name) for name in sets)]
    return Table("Topics whose share differs most", header, rows)


def _in_order(shift: TopicShift) -> list[str]:
    return [*(["real"] if "real" in shift.sets else []), *arms_in_order(set(shift.sets) - {"real"})]


def _name(name: str) -> str:
    return {"real": "Real, held out", "unique": "Unique"}.get(name) or arm_name(name)
