"""One picture of a run for a README: learning curves of the arms, and what a pair is worth."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from megasbp.errors import InputError
from megasbp.report.formats import arm_name, arms_in_order
from megasbp.report.schema import PairTable, Results, check_results
from megasbp.report.units import quantity
from megasbp.storage import publishing_file

INK, SOFT, RULE = "#1c1f24", "#5b616b", "#dcdcd6"
ARM_COLOURS = {
    "baseline": "#6b7280",
    "sbp": "#1d5fd1",
    "self_samples": "#be185d",
    "random_pairs": "#b45309",
    "continuation": "#4d7c0f",
    "in_context": "#0e7490",
    "seed_packing": "#a21caf",
    "second_round": "#1e3a8a",
    "oracle": "#0f766e",
}
ARM_DASHES = {
    "oracle": (0, (5, 2.5)),
    "random_pairs": (0, (1.2, 1.6)),
    "self_samples": (0, (4, 2, 1, 2)),
    "continuation": (0, (6, 2, 1.5, 2)),
    "in_context": (0, (0.8, 1.8)),
    "seed_packing": (0, (8, 2)),
    "second_round": (0, (3, 1.5)),
}
_OTHER = "#7c3aed"
_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    # Identifiers inside the SVG are hashes of their content and this salt, not random.
    "svg.hashsalt": "megasbp",
    # Letters as outlines: the picture looks the same wherever it is shown.
    "svg.fonttype": "path",
}
# No dates, no versions: equal results give equal bytes.
_METADATA: dict[str, dict[str, None]] = {".svg": {"Date": None, "Creator": None}, ".png": {"Software": None}}


def write_picture(results: dict[str, Any], path: Path) -> None:
    """Draws the picture; equal results give equal bytes with one version of matplotlib.

    Args:
        results: of one run.
        path: ends in .svg or .png.

    Raises:
        InputError: another ending, `results` not of the documented schema, or no arm with a learning curve.
    """
    path = Path(path)
    metadata = _METADATA.get(path.suffix)
    if metadata is None:
        raise InputError(f"{path}: {path.suffix!r} is no format of the picture; name it .svg or .png")
    checked = check_results(results)
    if not has_curves(checked):
        raise InputError(f"{path}: no arm has a learning curve; set training.validations to at least 2")
    tables = checked.pair_value.tables if checked.pair_value else {}
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(9.2, 3.6), layout="constrained", facecolor="white")
        if tables:
            left, right = figure.subplots(1, 2, width_ratios=(1.55, 1), gridspec_kw={"wspace": 0.06})
            _draw_pair_value(right, tables)
        else:
            left = figure.subplots()
        _draw_curves(left, checked)
        with publishing_file(path) as partial:
            figure.savefig(partial, format=path.suffix[1:], dpi=160, metadata=metadata)


def has_curves(results: Results) -> bool:
    """Whether any arm has a learning curve to draw."""
    return any(arm.curve for arm in results.arms.values())


def _draw_curves(axes: Axes, results: Results) -> None:
    """Validation loss, mean and range over the seeds; the axis is fitted to what follows the first third."""
    late, last = [], 0
    ends: list[tuple[float, str]] = []
    for name in arms_in_order(results.arms):
        colour = ARM_COLOURS.get(name, _OTHER)
        curve = results.arms[name].curve
        if not curve:
            continue
        x, y = [point.tokens for point in curve], [point.validation_loss for point in curve]
        lows, highs = [point.low for point in curve], [point.high for point in curve]
        axes.fill_between(x, lows, highs, color=colour, alpha=0.16, linewidth=0)
        axes.plot(x, y, color=colour, linestyle=ARM_DASHES.get(name, "solid"), linewidth=1.4)
        late += [loss for point in curve if point.tokens >= x[-1] / 3 for loss in (point.low, point.high)]
        last = max(last, x[-1])
        ends.append((y[-1], name))
    low, high = min(late), max(late)
    margin = 0.06 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(0, last)
    # Names at the curves' ends, at least one line of text apart.
    gap, lowest = 0.06 * (high - low + 2 * margin), -float("inf")
    for end, name in sorted(ends):
        lowest = max(end, lowest + gap)
        axes.annotate(
            arm_name(name),
            (last, lowest),
            xytext=(6, 0),
            textcoords="offset points",
            verticalalignment="center",
            color=ARM_COLOURS.get(name, _OTHER),
            weight="bold",
            annotation_clip=False,
        )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value)))
    axes.set_xlabel("training tokens")
    axes.set_title("Validation loss, nats per token", loc="left", fontsize=9.5, weight="bold")
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)


def _draw_pair_value(axes: Axes, tables: dict[str, PairTable]) -> None:
    """Bars of both differences with their intervals."""
    rows = [
        (f"{words}\n{name.replace('_', ' ')}", colour, one)
        for name, table in tables.items()
        for words, colour, one in (
            ("worth of the relation", ARM_COLOURS["sbp"], table.worth),
            ("true over another's seed", ARM_COLOURS["baseline"], table.shuffled_gap),
        )
    ]
    for position, (_, colour, one) in enumerate(rows):
        if one.estimate is None:
            continue
        axes.barh(position, one.estimate, height=0.55, color=colour, alpha=0.75)
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [position, position], color=INK, linewidth=1.4)
    axes.set_yticks(range(len(rows)), [words for words, _, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_xlabel("nats per token, right: the seed helps")
    axes.set_title("What a pair is worth", loc="left", fontsize=9.5, weight="bold")
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
