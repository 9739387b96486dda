"""`megasbp run --jobs 2`: the bytes of one job, whatever is killed on the way."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from commands import environment, megasbp_command, published
from test_more_arms import copy_of

# Made again: what may be made side by side. The rest of the finished run is kept.
AGAIN = ("train-*", "losses-*")


def test_two_jobs_give_the_bytes_of_one_although_the_run_was_killed(
    finished_run: Path, corpus: Path, tmp_path: Path
) -> None:
    recipe, run = copy_of(finished_run, corpus, tmp_path), tmp_path / "runs" / "small"
    shutil.rmtree(run / "report")
    (run / "used.json").unlink()
    for folder in (folder for pattern in AGAIN for folder in (run / "seed-0").glob(pattern)):
        shutil.rmtree(folder)
    command = megasbp_command("run", str(recipe), "--jobs", "2")

    workers = kill_while_both_work(command, run, tmp_path / "log")
    wait_for(lambda: not any(is_alive(worker) for worker in workers))
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    assert published(run) == published(finished_run / "runs" / "small")
    assert (run / "used.json").read_bytes() == (finished_run / "runs" / "small" / "used.json").read_bytes()
    lines = done.stdout.splitlines()
    assert {"corpus: done before, kept", "seed-0/synthesis-sbp: done before, kept"} <= set(lines)
    assert any(line.startswith("seed-0/train-sbp: finished in ") for line in lines)
    assert not (run / ".lock").exists()


def kill_while_both_work(command: list[str], run: Path, log: Path) -> list[int]:
    """SIGKILLs the main process when two trials are being trained; returns the workers' numbers."""
    with open(log, "wb") as output:
        main = subprocess.Popen(command, env=environment(), stdout=output, stderr=output)
    wait_for(lambda: len(list((run / "seed-0").glob("train-baseline-*"))) == 2 or main.poll() is not None)
    assert main.poll() is None, log.read_text()
    workers = Path(f"/proc/{main.pid}/task/{main.pid}/children").read_text().split()
    main.send_signal(signal.SIGKILL)
    main.wait()
    assert len(workers) == 2
    return [int(worker) for worker in workers]


def is_alive(process: int) -> bool:
    """Whether it runs; a dead one that nobody has waited for does not."""
    try:
        os.kill(process, 0)
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def wait_for(condition: object, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
