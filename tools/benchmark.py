"""Measures megasbp beside the tools people use today.

python tools/benchmark.py data
python tools/benchmark.py compare benchmarks/results/data.json other.json
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a clone that is not installed

from rich.console import Console

from benchmarks import data, report
from megasbp.errors import InputError

EXPLANATION = """\
Both sides are measured in turn in one run, after a warm-up; the table shows medians, the range of the
repeats, how many times better megasbp is, and the targets. A tool that is not installed is named with what to
install.
Results go to benchmarks/results/SUBJECT.json with commit, versions and machine.

For figures that mean something, let nothing else run; the file keeps the machine's load before the run.

exit status: 0 every target that could be measured is met, 1 one is missed, 2 something is wrong
"""
RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status."""
    options = parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        if options.command == "compare":
            report.compare(report.load(options.first), report.load(options.second), console)
            return 0
        return run_data(options, console)
    except InputError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2


def run_data(options: argparse.Namespace, console: Console) -> int:
    """Indexed data and loader."""
    settings = {"documents": options.documents, "samples": options.samples, "repeats": options.repeats}
    machine = report.machine()
    measures = data.measure(options.folder, corpus=options.corpus, **settings)
    settings["corpus"] = "random tokens" if options.corpus is None else options.corpus.name
    path = options.output or RESULTS / "data.json"
    results = report.publish(path, "data", settings, measures, data.PACKAGES, machine)
    report.show(results, console)
    return int(any(measure.met is False for measure in measures))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Measures megasbp beside the tools people use today.",
        epilog=EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    subject = commands.add_parser("data", help="indexed dataset and loader, beside megatron-core")
    subject.add_argument(
        "--corpus", type=Path, help="prefix of a dataset to draw from (default: 80M random tokens)"
    )
    subject.add_argument("--documents", type=int, default=10_000_000, help="of the large index (%(default)s)")
    subject.add_argument("--samples", type=int, default=4096, help="drawn per repeat (%(default)s)")
    subject.add_argument("--repeats", type=int, default=7, help="of every measure (%(default)s)")
    subject.add_argument("--folder", type=Path, default=None, help="for temporary files, 1 GB by default")
    subject.add_argument("--output", type=Path, help="results file (default: benchmarks/results/data.json)")
    comparison = commands.add_parser("compare", help="two results files side by side")
    comparison.add_argument("first", type=Path)
    comparison.add_argument("second", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
