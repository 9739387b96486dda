"""The contract with Slurm, against stand-ins for its commands; no real cluster has seen these scripts."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from megasbp.errors import InputError
from megasbp.launch.config import ClusterConfig, Resources
from megasbp.launch.job import Job
from megasbp.launch.slurm import script, submit

# Runs a job as soon as it is submitted; its number is the count of jobs so far.
SBATCH = """\
#!/bin/bash
echo "$@" >> "$STAND_IN/submitted"
number=$(wc -l < "$STAND_IN/submitted")
script="${@: -1}"
nodes=$(sed -n 's/^#SBATCH --nodes=//p' "$script")
export SLURM_JOB_ID=$number SLURM_NNODES=$nodes SLURM_JOB_NODELIST=here
bash "$script" > "$STAND_IN/log-$number" 2>&1 || exit 1
echo "$number"
"""
# One task a node, as --ntasks-per-node=1 asks.
SRUN = """\
#!/bin/bash
for node in $(seq "$SLURM_NNODES"); do "$@" & done
for job in $(jobs -p); do wait "$job" || exit 1; done
"""
SCONTROL = """\
#!/bin/bash
echo "$@" >> "$STAND_IN/controlled"
if [ "$1" = show ]; then echo 127.0.0.1; fi
"""
# Signals the steps of a job: what srun's stand-in has started.
SCANCEL = """\
#!/bin/bash
for program in $(pgrep -f "$STAND_IN/srun"); do pkill -TERM -P "$program"; done
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the commands, first on PATH, and with what they note."""
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN", str(tmp_path))
    return tmp_path


def job(name: str, code: str, needs: tuple[str, ...] = (), **resources: object) -> Job:
    return Job(name, Resources(**resources), needs, ("-c", code))  # type: ignore[arg-type]


def test_jobs_wait_for_those_they_need_and_for_an_earlier_one_of_their_name(stand_in: Path) -> None:
    jobs = [job("corpus", ""), job("seed-0/a", "", ("corpus",)), job("seed-0/b", "", ("corpus", "seed-0/a"))]

    numbers = submit(jobs[1:], ClusterConfig(), "small", stand_in / "jobs")

    assert numbers == {"seed-0/a": "1", "seed-0/b": "2"}
    first, second = (stand_in / "submitted").read_text().splitlines()
    # The corpus was finished before, so there is no job to wait for.
    assert "--dependency=singleton --" in first
    assert "--dependency=singleton,afterok:1 --" in second
    assert all("--parsable" in line and "--kill-on-invalid-dep=yes" in line for line in (first, second))


def test_directives_say_what_the_recipe_gives(stand_in: Path) -> None:
    cluster = ClusterConfig(options=("--account=me",), requeue_before=120)
    given = job("seed-0/train-sbp", "", nodes=8, processes=8, gpus=8, options=("--partition=big gpus",))

    lines = script(given, cluster, "small", stand_in).splitlines()

    for wanted in (
        "#SBATCH --job-name=small/seed-0/train-sbp",
        "#SBATCH --nodes=8",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:USR1@120",
        "#SBATCH --account=me",
        "#SBATCH '--partition=big gpus'",
    ):
        assert wanted in lines


def test_the_nodes_of_a_job_are_one_group_of_ranks(stand_in: Path, tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import os, pathlib\n"
        "rank, size, said = (os.environ[name] for name in ('RANK', 'WORLD_SIZE', 'STAND_IN'))\n"
        "pathlib.Path(said, f'rank-{rank}-of-{size}').touch()\n"
    )
    together = Job("seed-0/t", Resources(nodes=2, processes=2), (), (str(worker),))
    submit([together], ClusterConfig(port=free_port()), "small", stand_in / "jobs")
    assert sorted(path.name for path in stand_in.glob("rank-*")) == [f"rank-{rank}-of-4" for rank in range(4)]


# Takes a while to end after SIGTERM, as a rank does that writes a checkpoint.
STOPPING = """
import pathlib, signal, sys, time
def stop(number, frame):
    time.sleep(1.5)
    pathlib.Path({said!r}, "controlled").write_text("checkpoint written\\n")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
pathlib.Path({said!r}, "started").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_before_its_time_limit_a_job_writes_a_checkpoint_and_goes_back_into_the_queue(
    stand_in: Path, processes: int
) -> None:
    worker = stand_in / "worker.py"
    worker.write_text(STOPPING.format(said=str(stand_in)))
    given = Job("long", Resources(processes=processes), (), (str(worker),))
    path = stand_in / "job.sh"
    path.write_text(script(given, ClusterConfig(port=free_port()), "small", stand_in))
    known = {"SLURM_JOB_ID": "17", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "here"}
    with subprocess.Popen(["bash", str(path)], env={**os.environ, **known}) as running:
        wait_until((stand_in / "started").exists)
        running.send_signal(signal.SIGUSR1)
        running.wait(timeout=60)
    assert (stand_in / "controlled").read_text().splitlines()[-2:] == ["checkpoint written", "requeue 17"]


def test_a_job_that_does_not_stop_goes_back_into_the_queue_all_the_same(stand_in: Path) -> None:
    code = "import pathlib, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    code += f"pathlib.Path({str(stand_in)!r}, 'started').touch()\ntime.sleep(60)"
    path = stand_in / "job.sh"
    # Two seconds before the limit are enough here.
    text = script(job("long", code), ClusterConfig(), "small", stand_in).replace("seq 270", "seq 2")
    path.write_text(text)
    with subprocess.Popen(["bash", str(path)], env={**os.environ, "SLURM_JOB_ID": "17"}) as running:
        wait_until((stand_in / "started").exists)
        (child,) = subprocess.check_output(["pgrep", "-P", str(running.pid)], text=True).split()
        try:
            running.send_signal(signal.SIGUSR1)
            running.wait(timeout=20)
        finally:
            os.kill(int(child), signal.SIGKILL)
    assert (stand_in / "controlled").read_text() == "requeue 17\n"


def test_srun_is_given_the_cores_of_the_job(stand_in: Path) -> None:
    lines = script(job("a", "", nodes=2, cpus=96), ClusterConfig(), "small", stand_in).splitlines()
    assert "#SBATCH --cpus-per-task=96" in lines
    assert 'export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}"' in lines
    alone = script(job("a", ""), ClusterConfig(), "small", stand_in)
    assert "cpus-per-task" not in alone


def test_a_refused_job_is_named(stand_in: Path) -> None:
    (stand_in / "sbatch").write_text("#!/bin/bash\necho 'invalid partition' >&2\nexit 1\n")
    with pytest.raises(InputError, match=r"corpus\.sh: sbatch refuses it \(invalid partition\)"):
        submit([job("corpus", "")], ClusterConfig(), "small", stand_in / "jobs")


def test_without_sbatch_the_mend_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="there is no sbatch here"):
        submit([job("corpus", "")], ClusterConfig(), "small", tmp_path / "jobs")


def free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_until(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
