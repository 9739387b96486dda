"""What a benchmark reports: ratios, targets, a peer that is not installed, two runs compared."""

import json
import math
from io import StringIO

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.measuring import Measure, Side, interleave, peak_memory
from megasbp.errors import InputError

MACHINE = report.machine()


def measure(ours, theirs, *, higher=True, **target):
    sides = {"megasbp": Side(ours), "peer": Side(theirs, missing="" if theirs else "pip install peer")}
    return Measure("speed", "tokens/s" if higher else "s", higher, sides, **target)


def printed(function, *arguments):
    console = Console(width=200, record=True, file=StringIO())
    function(*arguments, console)
    return console.export_text()


@pytest.mark.parametrize(("higher", "ratio"), [(True, 4.0), (False, 0.25)])
def test_a_ratio_says_how_many_times_better_ours_is(higher, ratio):
    assert measure([8.0, 1.0, 100.0], [2.0, 2.0, 9.0], higher=higher).ratio("peer") == ratio


@pytest.mark.parametrize(
    ("target", "met"),
    [
        ({"target_ratios": {"peer": 4.0}}, True),
        ({"target_ratios": {"peer": 4.1}}, False),
        ({"target_limit": 8.0}, True),
        ({"target_limit": 8.1}, False),
        ({"target_ratios": {"peer": 4.0}, "target_limit": 8.1}, False),
        ({}, None),
    ],
)
def test_targets(target, met):
    assert measure([8.0], [2.0], **target).met is met


def test_two_peers_each_with_a_target():
    two = measure([8.0], [2.0], target_ratios={"peer": 4.0, "other": 2.0})
    two.sides["other"] = Side([5.0])
    assert two.met is False
    two.sides["other"] = Side([4.0])
    assert two.met is True


@pytest.mark.parametrize(
    ("ours", "theirs", "ratio"), [(0.0, 0.5, math.inf), (0.0, 0.0, 1.0), (0.5, 0.0, 0.0)]
)
def test_no_error_at_all_is_as_good_as_another_s_none(ours, theirs, ratio):
    assert measure([ours], [theirs], higher=False).ratio("peer") == ratio


def test_a_limit_of_time_is_an_upper_one():
    assert measure([0.04], [1.0], higher=False, target_limit=0.05).met is True
    assert measure([0.06], [1.0], higher=False, target_limit=0.05).met is False


def test_a_target_against_a_missing_peer_is_neither_met_nor_missed(tmp_path):
    results = report.publish(
        tmp_path / "r.json", "data", {}, [measure([8.0], [], target_ratios={"peer": 4.0})], [], MACHINE
    )
    assert measure([8.0], [], target_ratios={"peer": 4.0}).met is None
    text = printed(report.show, results)
    assert "pip install peer" in text
    assert "not measured" in text


def test_a_missed_target_is_missed_whatever_other_peers_are_missing():
    sides = {"megasbp": Side([8.0]), "slow": Side([7.0]), "absent": Side(missing="pip install absent")}
    asked = {"slow": 1.15, "absent": 1.15}
    assert Measure("speed", "tokens/s", True, sides, target_ratios=asked).met is False
    assert Measure("speed", "tokens/s", True, sides, target_ratios={**asked, "slow": 1.1}).met is None


def test_what_only_the_second_run_has_is_listed_with_both_devices(tmp_path):
    first = report.publish(tmp_path / "a.json", "data", {"rows": 8}, [measure([8.0], [2.0])], [], MACHINE)
    more = Measure("memory", "bytes", False, {"megasbp": Side([5.0])})
    second = report.publish(
        tmp_path / "b.json",
        "data",
        {"rows": 64},
        [measure([9.0], []), more],
        [],
        {**MACHINE, "devices": ["A GPU"]},
    )
    text = printed(report.compare, first, second)
    assert "memory" in text and "A GPU" in text
    assert "rows 8" in text and "rows 64" in text


def test_a_results_file_comes_back_as_it_was_published(tmp_path):
    results = report.publish(
        tmp_path / "r.json", "data", {"repeats": 3}, [measure([8.0], [2.0])], ["numpy"], MACHINE
    )
    assert report.load(tmp_path / "r.json") == json.loads(json.dumps(results))
    assert {"commit", "date", "machine", "versions", "settings"} <= results.keys()


def test_the_first_of_our_sides_is_still_the_first_after_reading(tmp_path):
    sides = {"megasbp, b": Side([8.0], facts={"kept": 3}), "megasbp, a": Side([1.0]), "peer": Side([2.0])}
    report.publish(tmp_path / "r.json", "data", {}, [Measure("speed", "s", True, sides)], [], MACHINE)
    text = printed(report.show, report.load(tmp_path / "r.json"))
    assert "4.00x" in text
    assert "megasbp, b: kept 3" in text


def test_a_file_of_another_format_is_refused(tmp_path):
    (tmp_path / "r.json").write_text('{"format": "another"}')
    with pytest.raises(InputError, match=r"r\.json: not a file of format"):
        report.load(tmp_path / "r.json")


def test_two_runs_side_by_side(tmp_path):
    first = report.publish(
        tmp_path / "a.json", "data", {}, [measure([2.0], [1.0], higher=False)], [], MACHINE
    )
    second = report.publish(tmp_path / "b.json", "data", {}, [measure([1.0], [], higher=False)], [], MACHINE)
    text = printed(report.compare, first, second)
    assert "2.00x" in text
    assert "pip install peer" in text
    with pytest.raises(InputError, match="'data', the other of 'kernels'"):
        report.compare(first, {**second, "subject": "kernels"}, Console())


@pytest.mark.parametrize(
    ("value", "shown"), [(6.12e8, "612 Mtokens/s"), (0.0084, "8.4 mtokens/s"), (0.0, "0 tokens/s")]
)
def test_quantities(value, shown):
    assert report.quantity(value, "tokens/s") == shown


def test_a_share_has_no_prefix():
    assert report.quantity(0.00912, "") == "0.00912"


def test_sides_take_turns_and_the_warm_up_does_not_count():
    order = []

    def side(name):
        return lambda: order.append(name) or len(order)

    values = interleave({"a": side("a"), "b": side("b")}, repeats=2)
    assert order == ["a", "b"] * 3
    assert values == {"a": [3, 5], "b": [4, 6]}


def test_peak_memory_is_at_least_what_was_held():
    held = bytearray(64 << 20)
    held[::4096] = b"x" * len(held[::4096])
    assert peak_memory() > len(held)
