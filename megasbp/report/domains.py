"""The report's table of held-out loss by domain."""

from megasbp.report.formats import NOTHING, arm_name, arms_in_order, count, interval, number, signed
from megasbp.report.schema import Results
from megasbp.report.tables import Table


def domains_table(results: Results) -> Table:
    """Every arm's held-out loss on each domain, and its gain over the baseline."""
    rows = []
    for name, domain in results.domains.items():
        for position, arm in enumerate(arms_in_order(domain.arms)):
            value, gain = domain.arms[arm].value, domain.arms[arm].gain
            rows.append(
                [
                    f"{name}, {count(domain.documents)} documents" if position == 0 else "",
                    arm_name(arm),
                    f"{number(value.estimate)} \N{PLUS-MINUS SIGN} {number(value.standard_error)}",
                    signed(gain.estimate) if gain else NOTHING,
                    interval(gain.low, gain.high, sign=True) if gain else NOTHING,
                ]
            )
    return Table(
        "Held-out loss by domain, nats per byte",
        ["Domain", "Arm", "Loss \N{PLUS-MINUS SIGN} error", "Gain", "Interval of gain"],
        rows,
        "The gain is over the baseline, paired by seed and document; positive: the arm predicts the domain "
        "better. None of these is a declared hypothesis.",
        text_columns=2,
    )
