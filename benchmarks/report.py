"""Results of a benchmark: a versioned JSON file, and tables drawn from it."""

import datetime
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import ROOT, Measure, Side, times_better
from megasbp.errors import InputError
from megasbp.storage import publish_json, read_json

_FORMAT = "megasbp benchmark 1"
_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def machine() -> dict[str, Any]:
    """The machine, and how busy other programs keep it: ask before measuring."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "processor": processor,
        "devices": devices,
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        # More than a few tenths of the cores, and the times are those of a busy machine.
        "load": os.getloadavg()[0],
    }


def circumstances(packages: Sequence[str], measured_on: dict[str, Any]) -> dict[str, Any]:
    """What every results file says beside its figures: date, commit, `machine()`, versions."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": measured_on,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
    }


def publish(
    path: Path,
    subject: str,
    settings: dict[str, Any],
    measures: Sequence[Measure],
    packages: Sequence[str],
    measured_on: dict[str, Any],
) -> dict[str, Any]:
    """Writes the results with the circumstances they were measured in. Returns them."""
    results = {
        "format": _FORMAT,
        "subject": subject,
        **circumstances(packages, measured_on),
        "settings": settings,
        "measures": [_entry(measure) for measure in measures],
    }
    publish_json(path, results)
    return results


def load(path: Path) -> dict[str, Any]:
    """Reads a results file.

    Raises:
        InputError: missing, not JSON, or of another format.
    """
    results = read_json(path)
    if not isinstance(results, dict) or results.get("format") != _FORMAT:
        raise InputError(f"{path}: not a file of format {_FORMAT!r}; give one of benchmarks/results/*.json")
    return results


def show(results: dict[str, Any], console: Console) -> None:
    """Prints every side of every measure, how many times better ours is, and the targets."""
    console.print(_heading(results))
    table = Table(
        "measure", "side", "median", "from .. to", "ours is", "target", "", title=results["subject"]
    )
    for measure in _measures(results):
        for number, (name, side) in enumerate(measure.sides.items()):
            ratio = None if side is measure.ours else measure.ratio(name)
            target, verdict = _target(measure, name)
            table.add_row(
                "" if number else measure.name,
                _description(name, side),
                side.missing or quantity(side.median, measure.unit),
                ""
                if side.missing
                else " .. ".join(quantity(edge(side.values), measure.unit) for edge in (min, max)),
                "" if ratio is None else _times(ratio),
                target,
                verdict,
            )
        table.add_section()
    console.print(table)


def compare(first: dict[str, Any], second: dict[str, Any], console: Console) -> None:
    """Prints two runs side by side; a ratio above 1 means that the second is better.

    Raises:
        InputError: they are of different subjects.
    """
    if first["subject"] != second["subject"]:
        raise InputError(f"one file is of {first['subject']!r}, the other of {second['subject']!r}")
    console.print(f"A: {_heading(first)}\nB: {_heading(second)}")
    for name in sorted(first["settings"].keys() | second["settings"].keys()):
        one, other = (results["settings"].get(name) for results in (first, second))
        if one != other:
            console.print(f"set differently: A {name} {one}, B {name} {other}")
    table = Table("measure", "side", "A", "B", "B is better by", title=first["subject"])
    known, others = ({measure.name: measure for measure in _measures(one)} for one in (first, second))
    for measure in (known | others).values():
        sides, matches = (
            runs[measure.name].sides if measure.name in runs else {} for runs in (known, others)
        )
        for name in sides | matches:
            side, match = sides.get(name, Side()), matches.get(name, Side())
            cells = [
                quantity(s.median, measure.unit) if s.values else s.missing or "not measured"
                for s in (side, match)
            ]
            ratio = ""
            if side.values and match.values:
                ratio = _times(times_better(match.median, side.median, measure.higher_is_better))
            table.add_row(measure.name, name, *cells, ratio)
        table.add_section()
    console.print(table)


def quantity(value: float, unit: str) -> str:
    """Three digits and a prefix: 612 Mtokens/s, 8.4 s; a share with four: 0.9734."""
    if not unit:
        return f"{value:.4g}"
    for scale, prefix in _SCALES:
        if abs(value) >= scale:
            return f"{value / scale:.3g} {prefix}{unit}".rstrip()
    return f"{value:.3g} {unit}".rstrip()


def _description(name: str, side: Side) -> str:
    """A side's name, what ran, and what else came out of it."""
    facts = (f"{fact.replace('_', ' ')} {_shown(value)}" for fact, value in side.facts.items())
    details = "; ".join(part for part in (side.note, ", ".join(facts)) if part)
    return f"{name}: {details}" if details else name


def _times(ratio: float) -> str:
    return "∞" if math.isinf(ratio) else f"{ratio:.2f}x"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _entry(measure: Measure) -> dict[str, Any]:
    """A measure as JSON. Sides are a list: the first of ours is compared, and objects are sorted by key."""
    return {
        **asdict(measure),
        "sides": [{"name": name, **asdict(side)} for name, side in measure.sides.items()],
    }


def _measures(results: dict[str, Any]) -> list[Measure]:
    measures = []
    for entry in results["measures"]:
        sides = [dict(side) for side in entry["sides"]]
        measures.append(Measure(**{**entry, "sides": {side.pop("name"): Side(**side) for side in sides}}))
    return measures


def _target(measure: Measure, name: str) -> tuple[str, str]:
    """The target that a side's row shows, and the verdict."""
    verdicts = {True: "met", False: "MISSED", None: "not measured"}
    if name in measure.target_ratios:
        return f">= {measure.target_ratios[name]:g}x", verdicts[measure.ratio_met(name)]
    if measure.target_limit is not None and measure.sides[name] is measure.ours:
        relation = ">=" if measure.higher_is_better else "<="
        return f"{relation} {quantity(measure.target_limit, measure.unit)}", verdicts[measure.limit_met]
    return "", ""


def _heading(results: dict[str, Any]) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in results["versions"].items())
    devices = "".join(f"{device}, " for device in machine["devices"])
    return (
        f"{results['date']}, commit {results['commit']}, {machine['cores']} x {machine['processor']}, "
        f"{devices}load {machine['load']:.1f} before; {versions}"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Of the clone; MEGASBP_COMMIT names it in a copy without its history."""
    if "MEGASBP_COMMIT" in os.environ or shutil.which("git") is None:
        return os.environ.get("MEGASBP_COMMIT", "unknown")
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    if commit.returncode != 0:
        return "unknown"
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ":!benchmarks/results"], check=False)
    return commit.stdout.strip() + ("" if changed.returncode == 0 else " with changes")
