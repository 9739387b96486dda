"""What a launcher starts: a command line, what it runs on, and which jobs come before."""

from dataclasses import dataclass

from megasbp.launch.config import Resources


@dataclass(frozen=True)
class Job:
    """One start, which finds what earlier starts have left and goes on there.

    Attributes:
        name: of what it makes, e.g. "seed-0/train-sbp".
        resources: what it runs on.
        needs: names of the jobs that must be finished before.
        arguments: of Python, on every rank: ("-m", "megasbp", "stage", ...).
    """

    name: str
    resources: Resources
    needs: tuple[str, ...]
    arguments: tuple[str, ...]
