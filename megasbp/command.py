"""How a command line ends: what its user can mend is one line on standard error, without a traceback."""

import argparse
import os
import sys
from collections.abc import Callable

from megasbp.errors import NO_ROOM, NOT_ALLOWED, InputError, ShardError, StageError


def run_command(
    name: str, work: Callable[[argparse.Namespace], int | None], options: argparse.Namespace, kept: str = ""
) -> int:
    """Does a command's work. A failure that is none of those below is a defect, and keeps its traceback.

    Args:
        name: begins the line.
        work: gets `options`; returns the exit status, or None for 0.
        kept: what the same command does not make again, e.g. "finished stages"; "" where it begins anew.

    Returns:
        The exit status: that of `work`; 2 for an InputError, a full disk and a path that cannot be used; 1
        for a ShardError and a StageError; 130 for an interrupt.
    """
    try:
        return work(options) or 0
    except InputError as error:
        line, status = str(error), 2
    except (ShardError, StageError) as error:
        line, status = str(error), 1
    except OSError as error:
        problem = _problem(error, f"{kept} are kept" if kept else "")
        if problem is None:
            raise
        line, status = problem, 2
    except KeyboardInterrupt:
        goes_on = "; the same command continues where this one stopped" if kept else ""
        line, status = f"interrupted{goes_on}", 130
    print(f"{name}: {line}", file=sys.stderr)
    return status


def _problem(error: OSError, kept: str) -> str | None:
    """What is wrong with a disk or a path; None for another failure."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in NO_ROOM:
        mend = "free some disk and run the same command again"
        # Libraries put texts of their own into strerror.
        return f"{where}{os.strerror(error.errno)}; {', '.join(filter(None, (mend, kept)))}"
    if error.errno in NOT_ALLOWED and where:
        return f"{where}{'; '.join(filter(None, (error.strerror, kept)))}"
    return None
