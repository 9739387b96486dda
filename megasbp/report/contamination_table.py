"""What the synthetic text shares with tests, as plain cells."""

from megasbp.report.formats import NOTHING, arm_name, arms_in_order, count, share
from megasbp.report.tables import Table
from megasbp.report.text_schema import Contamination


def contamination_table(found: Contamination) -> Table:
    """Shares of documents with a shingle of each test."""
    arms = arms_in_order(found.before_filters)
    rows = [
        [
            f"{name}, but {count(test.unreadable)} unreadable rows" if test.unreadable else name,
            count(test.documents),
            count(test.short),
            *(share(test.shares.get(one), 2) for one in ("unique", *arms)),
        ]
        for name, test in found.tests.items()
    ]
    if found.measured:
        drawn = ("Measured, drawn at random", NOTHING, NOTHING)
        rows.append([*drawn, *(count(found.measured[one]) for one in ("unique", *arms))])
    before = (share(found.before_filters[arm], 2) for arm in arms)
    rows.append(["Held-out text alone, before the filters", NOTHING, NOTHING, NOTHING, *before])
    return Table(
        "Contamination: documents that share a shingle with a test",
        ["Test", "Documents", "Too short", "Unique", *(arm_name(arm) for arm in arms)],
        rows,
        "Unique: what real text shares with the test anyway. The filters of synthesis drop documents that "
        "share more with held-out text than the recipe allows, but for what the unique text says too; the "
        "last row is of all that was written.",
        total_rows=1,
    )
