"""Parts side by side: what may be begun when, and what a failure, a death and a signal leave."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from megasbp.errors import InputError, StageError
from megasbp.experiment.part import Part
from megasbp.experiment.part_pool import PartPool
from megasbp.experiment.schedule import Schedule, Task
from megasbp.experiment.side_by_side import _stoppable, run_parts


def part(name: str, needs: str = "", pieces: int = 0) -> Part:
    return Part(name, "training", tuple(needs), (name,), _unused, (_unused,) * pieces)


def _unused(method: object) -> None:
    raise AssertionError("the main process makes nothing")


def nothing(part: Part) -> None:
    pass


def names(tasks: list[Task]) -> list[str]:
    return [str(task) for task in tasks]


def ready(schedule: Schedule) -> list[Task]:
    tasks = []
    while (task := schedule.next()) is not None:
        tasks.append(task)
    return tasks


def test_parts_are_ready_in_their_order_when_all_their_needs_are_finished() -> None:
    parts = [part("a"), part("b", "a"), part("c", "a"), part("d", "bc"), part("e", "c")]
    schedule = Schedule(parts, lambda part: False, nothing, nothing)
    (a,) = ready(schedule)
    assert ready(schedule) == []
    schedule.ended(a)
    b, c = ready(schedule)
    assert names([a, b, c]) == ["a", "b", "c"]
    schedule.ended(c)
    assert names(ready(schedule)) == ["e"]
    schedule.ended(b)
    assert names(ready(schedule)) == ["d"]


def test_finished_parts_are_kept_and_what_needs_them_is_ready_at_once() -> None:
    kept: list[str] = []
    done: list[str] = []
    schedule = Schedule(
        [part("a"), part("b", "a"), part("c", "b")],
        lambda part: part.name in "ab",
        lambda part: kept.append(part.name),
        lambda part: done.append(part.name),
    )
    assert names(ready(schedule)) == ["c"]
    assert kept == done == ["a", "b"]


@pytest.mark.parametrize("left", [True, False])
def test_the_part_is_made_after_its_pieces_if_they_have_left_anything(left: bool) -> None:
    made: set[str] = set()
    schedule = Schedule(
        [part("a", pieces=2), part("b"), part("c", "a")],
        lambda part: part.name in made,
        lambda part: pytest.fail("it was made now"),
        nothing,
    )
    tasks = ready(schedule)
    assert names(tasks) == ["a (1 of 2)", "a (2 of 2)", "b"]
    schedule.ended(tasks[1])
    assert ready(schedule) == []
    schedule.ended(tasks[0])
    if left:
        (whole,) = ready(schedule)
        assert names([whole]) == ["a"]
        schedule.ended(whole)
    else:
        made.add("a")
    assert names(ready(schedule)) == ["c"]


class Run:
    """Parts made by workers that do as they are told; `log` has beginnings, ends and what was said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, parts: list[Part], jobs: int, does: Mapping[str, list[str]]) -> None:
        opening = {"folder": str(self.folder), "does": dict(does)}
        with PartPool(jobs, opening, "stand_in_worker") as pool:
            run_parts(parts, pool, lambda part: False, self._note, nothing)

    def _note(self, line: str) -> None:
        with open(self.folder / "log", "a", encoding="utf-8") as log:
            log.write(f"{line}\n")

    @property
    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []


# Each task waits until the other one has begun: for ever, where they are not side by side.
TOGETHER = (("a.0", "a.1"), ("a.1", "a.0"), ("b", "c"), ("d", "e"))
# Begins before the other one fails, and ends after it was told that it goes on.
OUTLIVES = ["sees a: failed; nothing else is begun, still made: b"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_what_may_be_is_made_side_by_side_and_never_more_than_was_asked_for(run: Run) -> None:
    parts = [part("a", pieces=2), *(part(name, "a") for name in "bcde"), part("f", "bcde")]
    run(parts, 2, {name: [f"sees begin {other}"] for name, other in TOGETHER})
    log, working = run.log, 0
    for line in log:
        working += 1 if line.startswith("begin") else -1
        assert 0 <= working <= 2
    assert len(log) == 2 * 8
    assert log.index("begin a") > max(log.index("end a.0"), log.index("end a.1"))
    assert log[-2:] == ["begin f", "end f"]


def test_after_a_failure_what_runs_is_finished_and_nothing_else_is_begun(run: Run) -> None:
    with pytest.raises(InputError, match="^a: the gate is closed$"):
        fails = ["sees begin b", "fails a: the gate is closed"]
        run([part("a"), part("b"), part("c")], 2, {"a": fails, "b": OUTLIVES})
    assert "end b" in run.log and "begin c" not in run.log


def test_every_failure_is_said(run: Run) -> None:
    with pytest.raises(InputError, match="^one$"):
        run([part("a"), part("b")], 2, {"a": ["sees begin b", "fails one"], "b": [*OUTLIVES, "fails two"]})
    assert "b: failed too; two" in run.log


def test_a_worker_that_dies_is_told_by_its_part(run: Run) -> None:
    with pytest.raises(StageError, match=r"^a: its worker was killed \(SIGKILL; out of memory\?\); the same"):
        run([part("a"), part("b"), part("c")], 2, {"a": ["sees begin b", "dies"], "b": OUTLIVES})
    assert "end b" in run.log and "begin c" not in run.log


def test_lines_of_workers_come_out_whole(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    run([part("a"), part("b")], 2, {"a": ["speaks ab"], "b": ["speaks cd"]})
    assert sorted(capfd.readouterr().out.split()) == ["ab" * 40, "cd" * 40]


@pytest.mark.parametrize("number, raised", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_reaches_the_workers_which_are_waited_for(
    run: Run, number: signal.Signals, raised: type[BaseException]
) -> None:
    # A shell that starts the tests in the background has SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    signal_when(lambda: "begin a" in run.log, number)
    try:
        with pytest.raises(raised) as stopped, _stoppable():
            run([part("a")], 2, {"a": ["sleeps"]})
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.log == ["begin a", "stopped cleanly"]
    assert raised is KeyboardInterrupt or stopped.value.code == 143  # type: ignore[attr-defined]


def test_a_worker_that_misses_the_signal_ends_after_its_task(run: Run) -> None:
    signal_when(lambda: "ignores" in run.log, signal.SIGTERM)
    with pytest.raises(SystemExit), _stoppable():
        run([part("a"), part("b", "a")], 2, {"a": ["ignores 1"]})
    assert run.log == ["begin a", "ignores", "end a"]


def signal_when(condition: Callable[[], bool], number: signal.Signals) -> None:
    """Sends this process a signal as soon as something holds."""

    def stop() -> None:
        wait_until(condition)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop).start()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
