"""What one host does with its jobs; two hosts are in tests/end_to_end/test_two_hosts.py."""

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

import pytest

from megasbp.errors import InputError, StageError
from megasbp.launch import agent, failure
from megasbp.launch.config import ClusterConfig, Resources
from megasbp.launch.job import Job
from megasbp.launch.torchrun import Host, _wait_for, run_jobs

ALONE = Host()


def job(name: str, folder: Path, **resources: int) -> Job:
    """Leaves a file NAME-RANK."""
    code = (
        f"import os, pathlib; pathlib.Path({str(folder)!r}, '{name}-' + os.environ.get('RANK', '0')).touch()"
    )
    return Job(name, Resources(**resources), (), ("-c", code))  # type: ignore[arg-type]


def run(jobs: list[Job], host: Host = ALONE, restarts: int = 0, done: tuple[str, ...] = ()) -> list[str]:
    lines: list[str] = []
    cluster = ClusterConfig(maximum_restarts=restarts)
    run_jobs(jobs, host, cluster, lambda job: job.name in done, lines.append)
    return lines


def test_jobs_run_in_order_and_finished_ones_are_kept(tmp_path: Path) -> None:
    lines = run([job(name, tmp_path) for name in "abc"], done=("b",))
    assert lines == ["a: one process", "b: done before, kept", "c: one process"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-0", "c-0"]


def test_several_ranks_are_started_by_an_agent_and_signals_are_as_before(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
    run([job("a", tmp_path, processes=2), job("b", tmp_path, processes=2)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-0", "a-1", "b-0", "b-1"]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)] == before


def test_a_failed_job_ends_the_run_with_its_name(tmp_path: Path) -> None:
    for resources in (Resources(), Resources(processes=2)):
        failing = Job("seed-0/f", resources, (), ("-c", "raise SystemExit(3)"))
        with pytest.raises(StageError, match="seed-0/f: .*failed with status 3"):
            run([failing, job("after", tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_failed_ranks_are_started_again(tmp_path: Path) -> None:
    # The first start leaves a mark and fails; the second one finds it.
    mark = tmp_path / "mark"
    code = f"import pathlib; mark = pathlib.Path({str(mark)!r}); first = not mark.exists(); mark.touch()"
    run([Job("a", Resources(processes=2), (), ("-c", f"{code}; exit(first)"))], restarts=2)


def test_another_host_waits_and_ends_with_its_last_job(tmp_path: Path) -> None:
    jobs = [job("a", tmp_path), job("b", tmp_path, nodes=2), job("c", tmp_path)]
    assert run(jobs, Host(1, "127.0.0.1:1"), done=("a", "b")) == [
        "a: done before, kept",
        "b: done before, kept",
    ]


def test_a_waiting_host_ends_when_host_0_has_failed_and_not_while_it_is_away(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    failing = Job("seed-0/f", Resources(), (), ("-c", "import time; time.sleep(3); raise SystemExit(3)"))
    jobs = [failing, job("b", tmp_path, nodes=2)]
    with ThreadPoolExecutor(1) as pool:
        # It begins to wait before host 0 is there.
        waiting = pool.submit(_wait_for, failing, Host(1, endpoint), endpoint, lambda job: False, print)
        with pytest.raises(FutureTimeout):
            waiting.result(timeout=1)
        start = time.monotonic()
        with pytest.raises(StageError, match="seed-0/f: failed with status 3"):
            run(jobs, Host(0, endpoint))
        assert time.monotonic() - start < failure.LONGEST_PAUSE, "host 0 went on before it was heard"
        with pytest.raises(StageError, match="host 0 has failed.*seed-0/f: failed with status 3"):
            waiting.result(timeout=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "host, message",
    [
        (Host(), "--rdzv-endpoint: is needed where stages use 2 hosts"),
        (Host(2, "here:29400"), "--node-rank 2: the recipe's stages use 2 hosts, 0 to 1"),
        (Host(-1, "here:29400"), "--node-rank -1"),
        (Host(0, "here"), "--rdzv-endpoint here: is not HOST:PORT"),
    ],
)
def test_a_host_that_cannot_meet_the_others_is_refused(tmp_path: Path, host: Host, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run([job("a", tmp_path, nodes=2)], host)


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        host = Host(0, f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(InputError, match="host 0 cannot listen there"):
            run([job("a", tmp_path, nodes=2)], host)


def test_an_agent_does_not_outlive_its_finished_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "_END_SECONDS", 0.1)
    start = time.monotonic()
    with pytest.raises(agent._FinishedWithoutUs), agent._ending_when(lambda: True):
        time.sleep(20)
    assert time.monotonic() - start < 10
    with agent._ending_when(lambda: False):
        time.sleep(0.5)


def test_a_look_that_takes_long_is_not_interrupted_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "_END_SECONDS", 0.05)
    inside, deepest = 0, 0

    def look() -> bool:
        nonlocal inside, deepest
        inside += 1
        deepest = max(deepest, inside)
        time.sleep(0.3)
        inside -= 1
        return False

    with agent._ending_when(look):
        time.sleep(1)
    assert deepest == 1
