"""Small SVG charts for the page, coloured by its style sheet, so that they follow dark mode and print."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from megasbp.report.formats import MINUS, interval, signed
from megasbp.report.markup import Markup, element

# A chart is drawn twice, for wide and for narrow screens: scaling one drawing would make its text unreadable.
WIDE, NARROW = 790, 350
_CHARACTER = 7.4  # width of a character of the charts' 12-pixel text in a wide font
_LINE = 16


@dataclass(frozen=True)
class Line:
    """A curve: its name, the style class of its arm, and points (x, y) in order of x.

    `band` has the bounds (low, high) at each point; without it no band is drawn.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Range:
    """An estimate with its interval, for `interval_chart`."""

    name: str
    style: str
    estimate: float
    low: float
    high: float


def figure(draw: Callable[[int], Markup], caption: str) -> Markup:
    """A chart for wide and narrow screens, with a caption that says what to see."""
    return element(
        "figure",
        element("div", draw(WIDE), class_="wide"),
        element("div", draw(NARROW), class_="narrow"),
        element("figcaption", caption),
    )


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between `low` and `high`, roughly `about` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(size * magnitude for size in (1, 2, 2.5, 5, 10) if size * magnitude >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def line_chart(
    lines: Sequence[Line], width: int, *, x_label: str, y_label: str, x_text: Callable[[int], str], title: str
) -> Markup:
    """Learning curves, each named at its right end.

    The vertical axis is fitted to what happens after the first third: the steep start, which every arm
    shares, would press the differences together. Curves are clipped there.
    """
    names = list(dict.fromkeys((line.name, line.style) for line in lines))
    right = min(14 + _CHARACTER * max(len(name) for name, _ in names), 0.4 * width)
    height = 340 if width == WIDE else 300
    left, top, bottom = 46.0, 26.0, height - 40.0
    last = max(x for line in lines for x, _ in line.points)
    late = [y for line in lines for x, y in line.points if x >= last / 3]
    late += [
        bound
        for line in lines
        if line.band
        for (x, _), bounds in zip(line.points, line.band, strict=True)
        if x >= last / 3
        for bound in bounds
    ]
    x_high = last or 1.0
    low, high = min(late), max(late)
    margin = 0.06 * (high - low) or 0.5
    low, high = low - margin, high + margin
    plot_right = width - right

    def across(x: float) -> float:
        return left + (plot_right - left) * x / x_high

    def down(y: float) -> float:
        return bottom - (bottom - top) * (y - low) / (high - low)

    parts = [element("text", y_label, x=0, y=12, class_="axis-name")]
    shown = ticks(low, high, 5)
    for value in shown:
        y = _round(down(value))
        parts.append(element("line", x1=left, x2=_round(plot_right), y1=y, y2=y, class_="grid"))
        label = _tick_text(value, shown)
        parts.append(element("text", label, x=left - 8, y=_round(down(value) + 4), class_="tick end"))
    for value in ticks(0, x_high, 5 if width == WIDE else 3):
        label = x_text(round(value))
        parts.append(element("text", label, x=_round(across(value)), y=bottom + 18, class_="tick middle"))
    parts.append(element("line", x1=left, x2=_round(plot_right), y1=bottom, y2=bottom, class_="axis"))
    middle = _round((left + plot_right) / 2)
    parts.append(element("text", x_label, x=middle, y=height - 4, class_="axis-name middle"))
    clip = f"clip-{_slug(title)}-{width}"
    window = element("rect", x=left, y=top - 4, width=_round(plot_right - left + 3), height=bottom - top + 4)
    parts.append(element("clipPath", window, id=clip))
    curves = []
    for line in lines:
        if line.band:
            around = [(x, low) for (x, _), (low, _) in zip(line.points, line.band, strict=True)]
            around += [(x, high) for (x, _), (_, high) in zip(line.points, line.band, strict=True)][::-1]
            corners = " ".join(f"{_round(across(x))},{_round(down(y))}" for x, y in around)
            curves.append(element("polygon", points=corners, class_=f"band {line.style}"))
    for line in lines:
        points = " ".join(f"{_round(across(x))},{_round(down(y))}" for x, y in line.points)
        curves.append(element("polyline", points=points, class_=f"curve {line.style}"))
    parts.append(element("g", *curves, clip_path=f"url(#{clip})"))
    first = {line.name: line for line in reversed(lines)}
    ends = [(down(first[name].points[-1][1]), name, style) for name, style in names]
    for y, name, style in _spread(ends, top, bottom):
        position = {"x": _round(plot_right + 8), "y": _round(y + 4)}
        parts.append(element("text", name, class_=f"name {style}", **position))
    return _svg(width, height, title, parts)


def interval_chart(ranges: Sequence[Range], width: int, *, x_label: str, title: str) -> Markup:
    """Estimates with their intervals on one axis, with a line at zero."""
    wide = width == WIDE
    row_height = 34 if wide else 46
    # However long a name is, it leaves room for the plot.
    left = min(_CHARACTER * max(len(one.name) for one in ranges) + 16, 0.45 * width) if wide else 10.0
    right = width - (228.0 if wide else 10.0)
    top, bottom = 8.0, 8.0 + row_height * len(ranges)
    height = bottom + 42
    low = min(0.0, *(one.low for one in ranges))
    high = max(0.0, *(one.high for one in ranges))
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin

    def across(x: float) -> float:
        return _round(left + (right - left) * (x - low) / (high - low))

    shown = ticks(low, high, max(2, round((right - left) / 75)))
    parts = []
    for value in shown:
        parts.append(element("line", x1=across(value), x2=across(value), y1=top, y2=bottom, class_="grid"))
        words = _tick_text(value, shown, sign=True)
        parts.append(element("text", words, x=across(value), y=bottom + 16, class_="tick middle"))
    parts.append(element("line", x1=across(0), x2=across(0), y1=top, y2=bottom, class_="zero"))
    for row, one in enumerate(ranges):
        y = top + row_height * (row + 0.5) + (0 if wide else 10)
        words = signed(one.estimate)
        if wide:
            words += f" ({interval(one.low, one.high, sign=True)})"
            parts.append(element("text", one.name, x=left - 12, y=y + 4, class_="label end"))
            parts.append(element("text", words, x=right + 12, y=y + 4, class_="value"))
        else:
            parts.append(element("text", one.name, x=left, y=y - 12, class_="label"))
            parts.append(element("text", words, x=right, y=y - 12, class_="value end"))
        ends = {"x1": across(one.low), "x2": across(one.high), "y1": y, "y2": y}
        parts.append(element("line", class_=f"whisker {one.style}", **ends))
        parts.append(element("circle", cx=across(one.estimate), cy=y, r=5, class_=f"dot {one.style}"))
    middle = _round((left + right) / 2)
    parts.append(element("text", x_label, x=middle, y=height - 6, class_="axis-name middle"))
    return _svg(width, height, title, parts)


def histogram(
    edges: Sequence[float], counts: Sequence[int], width: int, *, x_label: str, y_label: str, title: str
) -> Markup:
    """Bars of counts of `y_label` between edges."""
    height, left, top = 220.0, 52.0, 24.0
    bottom, right = height - 40.0, width - 8.0
    x_low, x_high = edges[0], edges[-1]
    tallest = max([*counts, 1])

    def across(x: float) -> float:
        return _round(left + (right - left) * (x - x_low) / (x_high - x_low))

    parts = [element("text", y_label, x=0, y=12, class_="axis-name")]
    for value in ticks(0, tallest, 4):
        y = _round(bottom - (bottom - top) * value / tallest)
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(element("text", f"{value:,.0f}", x=left - 8, y=y + 4, class_="tick end"))
    for start, end, size in zip(edges[:-1], edges[1:], counts, strict=True):
        tall = _round((bottom - top) * size / tallest)
        # One pixel of air between neighbours.
        wide = max(across(end) - across(start) - 1, 0.5)
        bar = {"x": across(start), "y": _round(bottom - tall), "width": _round(wide), "height": tall}
        tip = element("title", f"{start:g} to {end:g}: {size:,}")
        parts.append(element("rect", tip, class_="bar", **bar))
    parts.append(element("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis"))
    shown = ticks(x_low, x_high, 6 if width == WIDE else 4)
    for value in shown:
        parts.append(
            element("text", _tick_text(value, shown), x=across(value), y=bottom + 18, class_="tick middle")
        )
    middle = _round((left + right) / 2)
    parts.append(element("text", x_label, x=middle, y=height - 4, class_="axis-name middle"))
    return _svg(width, height, title, parts)


def _svg(width: float, height: float, title: str, parts: list[Markup]) -> Markup:
    box = f"0 0 {width} {height:g}"
    return element("svg", *parts, viewBox=box, role="img", aria_label=title, class_="chart")


def _round(value: float) -> float:
    return round(value, 1)


def _tick_text(value: float, shown: Sequence[float], *, sign: bool = False) -> str:
    """A tick in as many decimals as the step between ticks needs."""
    step = shown[1] - shown[0] if len(shown) > 1 else abs(value) or 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    # A step of 2.5 units needs one decimal more than its size says.
    decimals += round(step * 10**decimals, 6) != round(step * 10**decimals)
    return f"{value:{'+' if sign and value else ''},.{decimals}f}".replace("-", MINUS)


def _spread(ends: list[tuple[float, str, str]], top: float, bottom: float) -> list[tuple[float, str, str]]:
    """Moves labels apart to one line each, keeping their order, inside the plot."""
    placed: list[tuple[float, str, str]] = []
    for y, name, style in sorted(ends):
        lowest = placed[-1][0] + _LINE if placed else top
        placed.append((max(y, lowest), name, style))
    limit = bottom
    for position in range(len(placed) - 1, -1, -1):
        y, name, style = placed[position]
        placed[position] = (min(y, limit), name, style)
        limit = placed[position][0] - _LINE
    return placed


def _slug(title: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in title.lower())
