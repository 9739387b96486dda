"""Measures megasbp beside the tools people use today.

python tools/benchmark.py all
python tools/benchmark.py search --corpus corpus.jsonl.zst
python tools/benchmark.py train configs/sbp_3b_200b.toml
python tools/benchmark.py compare benchmarks/results/data.json other.json
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a clone that is not installed

import torch
from rich.console import Console

from benchmarks import (
    data,
    duplicates,
    embeddings,
    generate,
    kernel_tuning,
    kernels,
    pair_caps,
    preprocess,
    report,
    search,
    train,
)
from megasbp.command import run_command

SUBJECTS = {
    "data": data,
    "preprocess": preprocess,
    "duplicates": duplicates,
    "search": search,
    "pair_caps": pair_caps,
    "embeddings": embeddings,
    "kernels": kernels,
    "train": train,
    "generate": generate,
    "tune": kernel_tuning,
}
ON_ANY_DEVICE = ("kernels", "train", "generate", "tune")
# Not measured by `all`: what needs a recipe, and what is for those who change kernels.
NOT_IN_ALL = ("train", "generate", "tune")
EXPLANATION = """\
All sides are measured in turn in one run; the table shows medians, the range of the repeats, how many times
better megasbp is, and the targets. A tool that is not installed is named with what to install. Results go to
benchmarks/results/SUBJECT.json with commit, versions and machine.

Text is the demo corpus (python tools/fetch_demo_corpus.py corpora/demo) unless --corpus names files or
folders as tools/preprocess_corpus.py reads them. `make bench` fetches what all subjects need and runs `all`,
then generate.

For figures that mean something, let nothing else run; the file keeps the machine's load before the run.

exit status: 0 every target that could be measured is met, 1 one is missed, 2 something is wrong
"""
RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status."""
    return run_command("benchmark", benchmark, parse(arguments))


def benchmark(options: argparse.Namespace) -> int:
    """Measures a subject or all of them, or compares two results. Returns the exit status."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    if options.command == "all":
        return run_all()
    if options.command == "compare":
        report.compare(report.load(options.first), report.load(options.second), console)
        return 0
    return run(options, console)


def run_all() -> int:
    """Every subject with its defaults, each in a fresh process. Returns the worst exit status."""
    names = [name for name in SUBJECTS if name not in NOT_IN_ALL]
    statuses = [subprocess.run([sys.executable, __file__, name], check=False).returncode for name in names]
    return max(statuses)


def run(options: argparse.Namespace, console: Console) -> int:
    """One subject: measures, writes its results file and shows it."""
    subject = SUBJECTS[options.command]
    machine = report.machine()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmark-") as folder:
        measures = subject.measure(options, Path(folder))
    if os.environ.get("RANK", "0") != "0":
        return 0  # Under torchrun the first rank has the figures of all.
    name = results_name(options.command, getattr(options, "device", None))
    path = options.output or options.results / f"{name}.json"
    results = report.publish(path, options.command, settings(options), measures, subject.PACKAGES, machine)
    report.show(results, console)
    return int(any(measure.met is False for measure in measures))


def results_name(subject: str, device: str | None = None) -> str:
    """Of a subject's file; those that run on a GPU or a CPU have a file for each, such as kernels-h200.

    Args:
        device: that was asked for; None for a GPU where there is one.
    """
    if subject not in ON_ANY_DEVICE:
        return subject
    if device == "cpu" or not torch.cuda.is_available():
        return f"{subject}-cpu"
    name = torch.cuda.get_device_name()
    model = re.search(r"[A-Z]+\d+\w*", name)  # The H100 of "NVIDIA H100 80GB HBM3".
    return f"{subject}-{(model.group() if model else name).lower().replace(' ', '-')}"


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """The options that the figures depend on; of paths the names, for folders differ between machines."""

    def shown(value: Any) -> Any:
        if isinstance(value, list):
            return [shown(item) for item in value]
        return value.name if isinstance(value, Path) else value

    others = ("command", "folder", "output", "results")
    return {name: shown(value) for name, value in vars(options).items() if name not in others}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Measures megasbp beside the tools people use today.",
        epilog=EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, subject in SUBJECTS.items():
        title = subject.__doc__.splitlines()[0]
        command = commands.add_parser(
            name,
            help=title,
            description=subject.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subject.add_options(command)
        command.add_argument("--folder", type=Path, help="for temporary files (the system's)")
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of the results file")
        command.add_argument("--output", type=Path, help=f"results file (RESULTS/{results_name(name)}.json)")
    commands.add_parser("all", help="every subject but train, generate and tune")
    comparison = commands.add_parser("compare", help="two results files side by side")
    comparison.add_argument("first", type=Path)
    comparison.add_argument("second", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
