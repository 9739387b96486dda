"""How names and numbers are written in the report, alike in the terminal and on the page."""

from collections.abc import Iterable

from megasbp.experiment.arms import ARMS
from megasbp.report.schema import Interval, Multiplier

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"
# Baselines that spend on training what SBP spends from end to end.
EQUAL_FLOPS_NAMES = {
    "baseline_flops_owned": "Baseline at SBP's operations, owned",
    "baseline_flops_counted": "Baseline at SBP's operations, counted",
}
_FLOPS_UNITS = (
    (1e21, "ZFLOP"),
    (1e18, "EFLOP"),
    (1e15, "PFLOP"),
    (1e12, "TFLOP"),
    (1e9, "GFLOP"),
    (1.0, "FLOP"),
)


def arm_name(arm: str) -> str:
    """The name of an arm as the report prints it; "baseline_x2" has twice the unique text."""
    base, multiple, factor = arm.partition("_x")
    if multiple and base in ARMS and factor.isdigit():
        return f"{ARMS[base].title}, {factor}x text"
    return EQUAL_FLOPS_NAMES.get(arm) or (ARMS[arm].title if arm in ARMS else label(arm))


def gain_name(treatment: str, reference: str) -> str:
    """The name of a contrast: "SBP over random pairs"."""
    other = arm_name(reference)
    return f"{arm_name(treatment)} over {other if other.isupper() else other.lower()}"


def arms_in_order(arms: Iterable[str]) -> list[str]:
    """Baseline, SBP, its controls, oracle; arms the report has never heard of come last, by name."""
    place = {arm: position for position, arm in enumerate(ARMS)}
    return sorted(arms, key=lambda arm: (place.get(arm, len(place)), arm))


def label(key: str) -> str:
    """A key of the results as words: "seed_copy" -> "Seed copy"."""
    words = key.replace("_", " ")
    return words[:1].upper() + words[1:]


def number(value: float | None, decimals: int = 4) -> str:
    """A fixed number of decimals, so that columns align; a dash for a missing value."""
    if value is None:
        return NOTHING
    return f"{value:,.{decimals}f}".replace("-", MINUS)


def signed(value: float | None, decimals: int = 4) -> str:
    """As `number`, with the sign always shown."""
    if value is None:
        return NOTHING
    return f"{value:+,.{decimals}f}".replace("-", MINUS)


def count(value: int) -> str:
    """A whole number with thousands apart."""
    return f"{value:,}".replace("-", MINUS)


def share(value: float | None, decimals: int = 1) -> str:
    """A share as a percentage."""
    return NOTHING if value is None else f"{100 * value:.{decimals}f}%".replace("-", MINUS)


def value_text(value: object) -> str:
    """Any scalar of the results, numbers in at most four significant decimals."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return f"{value:,.4g}".replace("-", MINUS)
    return NOTHING if value is None else str(value)


def p_value(value: float | None) -> str:
    """A p-value; below one in a thousand only that."""
    if value is None:
        return NOTHING
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def interval(low: float | None, high: float | None, decimals: int = 4, *, sign: bool = False) -> str:
    """The bounds of an interval."""
    show = signed if sign else number
    return NOTHING if low is None or high is None else f"{show(low, decimals)} to {show(high, decimals)}"


def flops_unit(largest: float) -> tuple[float, str]:
    """The unit in which a column up to `largest` operations reads well."""
    return next(unit for unit in _FLOPS_UNITS if largest >= unit[0] or unit[0] == 1.0)


def interval_text(found: Interval, *, sign: bool = False) -> str:
    """An estimate with its bounds in brackets."""
    show = signed if sign else number
    bounds = interval(found.low, found.high, sign=sign)
    return show(found.estimate) if bounds == NOTHING else f"{show(found.estimate)} ({bounds})"


def times(value: float) -> str:
    """A factor: 1.7 -> "1.7x"."""
    return f"{number(value, 1)}x"


def multiplier_text(found: Multiplier) -> str:
    """A multiplier with its bounds: "1.7x (1.3x to 2.2x)", "> 4.0x (3.1x to > 4.0x)", "< 1.0x (…)"."""
    below, above = f"< {times(found.smallest)}", f"> {times(found.largest)}"
    value = {"below": below, "above": above}.get(found.kind, times(found.estimate or found.smallest))
    low = below if found.low is None else times(found.low)
    high = above if found.high is None else times(found.high)
    return f"{value} ({low} to {high})"
