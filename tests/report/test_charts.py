"""The charts: right places, readable ticks, names that do not overlap."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from megasbp.report.charts import NARROW, WIDE, Line, Range, histogram, interval_chart, line_chart, ticks


def drawn(svg, style):
    """Attributes of the elements of one style class, in order."""
    return [part.attrib for part in ElementTree.fromstring(svg).iter() if part.get("class") == style]


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (4.41, 4.62, 5, [4.45, 4.5, 4.55, 4.6]),
        (-0.3, 0.2, 3, [-0.2, 0, 0.2]),
    ],
)
def test_ticks_are_round_and_inside(low, high, about, expected):
    assert ticks(low, high, about) == pytest.approx(expected)


def test_an_interval_is_drawn_to_scale():
    svg = interval_chart([Range("gain", "arm-sbp", 0.02, 0.01, 0.04)], WIDE, x_label="gain", title="gains")
    zero = float(drawn(svg, "zero")[0]["x1"])
    whisker = drawn(svg, "whisker arm-sbp")[0]
    low, high = float(whisker["x1"]) - zero, float(whisker["x2"]) - zero
    dot = float(drawn(svg, "dot arm-sbp")[0]["cx"]) - zero
    # Places are rounded to a tenth of a pixel.
    assert dot == pytest.approx(2 * low, abs=0.3)
    assert high == pytest.approx(4 * low, abs=0.5)


def test_a_lower_loss_is_drawn_lower():
    lines = [Line("A", "arm-sbp", [(1, 5.0), (2, 4.0), (3, 3.0)])]
    svg = line_chart(lines, WIDE, x_label="tokens", y_label="loss", x_text=str, title="curves")
    points = [point.split(",") for point in drawn(svg, "curve arm-sbp")[0]["points"].split()]
    across, down = ([float(point[axis]) for point in points] for axis in (0, 1))
    assert down == sorted(down)
    assert across[1] - across[0] == pytest.approx(across[2] - across[1], abs=0.2)


def test_a_band_lies_around_its_curve():
    line = Line("A", "arm-sbp", [(1, 5.0), (2, 4.0), (3, 3.0)], [(4.5, 5.5), (3.9, 4.1), (2.5, 3.5)])
    svg = line_chart([line], WIDE, x_label="tokens", y_label="loss", x_text=str, title="curves")
    corners = [point.split(",") for point in drawn(svg, "band arm-sbp")[0]["points"].split()]
    curve = [point.split(",") for point in drawn(svg, "curve arm-sbp")[0]["points"].split()]
    assert [corner[0] for corner in corners] == [point[0] for point in curve + curve[::-1]]
    lows, highs = corners[:3], corners[:2:-1]
    # Down is larger: a lower loss is drawn below the curve.
    for low, point, high in zip(lows, curve, highs, strict=True):
        assert float(high[1]) < float(point[1]) < float(low[1])


@pytest.mark.parametrize("height", [4.0, 3.0])
def test_names_of_curves_that_end_together_do_not_overlap(height):
    lines = [Line(name, "arm-sbp", [(0, 5.0), (10, height + 0.001 * k)]) for k, name in enumerate("ABCD")]
    svg = line_chart(lines, NARROW, x_label="tokens", y_label="loss", x_text=str, title="curves")
    places = sorted(float(part["y"]) for part in drawn(svg, "name arm-sbp"))
    assert len(places) == 4
    assert min(after - before for before, after in pairwise(places)) >= 15.9


def test_bars_are_as_tall_as_their_counts():
    svg = histogram(
        [0.0, 0.5, 1.0, 1.5], [10, 5, 0], WIDE, x_label="similarity", y_label="Pairs", title="pairs"
    )
    first, second, third = (float(bar["height"]) for bar in drawn(svg, "bar"))
    assert second == pytest.approx(first / 2, abs=0.1)
    assert third == 0


def test_a_long_name_leaves_room_for_the_plot():
    svg = interval_chart([Range("n" * 200, "arm-sbp", 0.02, 0.01, 0.04)], WIDE, x_label="gain", title="gains")
    whisker = drawn(svg, "whisker arm-sbp")[0]
    assert 0 < float(drawn(svg, "zero")[0]["x1"]) < float(whisker["x1"]) < float(whisker["x2"]) < WIDE


def test_a_curve_of_one_point_at_the_start_is_drawn():
    lines = [Line("A", "arm-sbp", [(0, 4.0)])]
    svg = line_chart(lines, WIDE, x_label="tokens", y_label="loss", x_text=str, title="curves")
    assert drawn(svg, "curve arm-sbp")[0]["points"] == "46.0,163.0"
