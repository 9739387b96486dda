"""Each stage as a job of Slurm, which starts when those that it needs are finished, and anew if lost."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from megasbp.errors import InputError
from megasbp.launch.config import ClusterConfig
from megasbp.launch.job import Job

_SCRIPT = """\
#!/bin/bash
{directives}

# Before the time limit the work is asked to stop, which it does with a checkpoint, and the job goes back into
# the queue: its next start goes on there.
stop() {{
    {ask_to_stop}
    for _ in $(seq {seconds_to_stop}); do
        kill -0 "$work" 2> /dev/null || break
        sleep 1
    done
    scontrol requeue "$SLURM_JOB_ID"
}}
trap stop USR1
{command} &
work=$!
wait "$work"
"""
# Of a process, and of a step of srun: all its agents.
_STOP_PROCESS = 'kill -TERM "$work"'
_STOP_STEP = 'scancel --signal=TERM "$SLURM_JOB_ID"'
_AGENTS = """\
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# A shared store would show ranks that start again what the lost ones wrote (pytorch issue 135712).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# What an agent that was asked to stop leaves its ranks for a checkpoint.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={seconds_to_stop}
# srun does not take over the job's cores per task by itself.
export SRUN_CPUS_PER_TASK="${{SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}}"
srun {python} -m torch.distributed.run --nnodes={nodes} --nproc-per-node={processes} \\
    --rdzv-backend=c10d --rdzv-endpoint="$head:{port}" --rdzv-id="$SLURM_JOB_ID" \\
    --max-restarts={restarts} {arguments}"""


def script(job: Job, cluster: ClusterConfig, run: str, folder: Path) -> str:
    """The batch script of a job: one process, or an agent of torchrun on every node.

    Args:
        run: name of the recipe. Jobs of one run and stage have one name, of which one runs at a time.
        folder: where the jobs' outputs go.
    """
    resources = job.resources
    options = (
        f"--job-name={run}/{job.name}",
        f"--nodes={resources.nodes}",
        "--ntasks-per-node=1",
        *([f"--gpus-per-node={resources.gpus}"] if resources.gpus else []),
        *([f"--cpus-per-task={resources.cpus}"] if resources.cpus else []),
        f"--chdir={Path.cwd()}",
        f"--output={folder.resolve() / _file_name(job)}-%j.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{cluster.requeue_before}",
        *cluster.options,
        *resources.options,
    )
    python, arguments = shlex.quote(sys.executable), shlex.join(job.arguments)
    command, ask_to_stop = f"{python} {arguments}", _STOP_PROCESS
    if resources.ranks > 1:
        command = _AGENTS.format(
            python=python,
            nodes=resources.nodes,
            processes=resources.processes,
            port=cluster.port,
            restarts=cluster.maximum_restarts,
            seconds_to_stop=cluster.seconds_to_stop,
            arguments=arguments,
        )
        ask_to_stop = _STOP_STEP
    directives = "\n".join(f"#SBATCH {shlex.quote(option)}" for option in options)
    return _SCRIPT.format(
        directives=directives,
        command=command,
        ask_to_stop=ask_to_stop,
        seconds_to_stop=cluster.seconds_to_stop,
    )


def submit(jobs: Sequence[Job], cluster: ClusterConfig, run: str, folder: Path) -> dict[str, str]:
    """Submits every job after those that it needs.

    Args:
        folder: where the scripts and the jobs' outputs go.

    Returns:
        Name of each job -> its number.

    Raises:
        InputError: there is no sbatch, or it has refused a job; those before it stay submitted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, str] = {}
    for job in jobs:
        path = folder / f"{_file_name(job)}.sh"
        path.write_text(script(job, cluster, run, folder), encoding="utf-8")
        # A job of the same name may still run, from an earlier submission.
        after = ["singleton", *(f"afterok:{numbers[need]}" for need in job.needs if need in numbers)]
        command = ["sbatch", "--parsable", f"--dependency={','.join(after)}", "--kill-on-invalid-dep=yes"]
        try:
            done = subprocess.run(
                [*command, str(path)], env=os.environ, capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise InputError(
                "--launcher slurm: there is no sbatch here; type it where jobs are submitted"
            ) from None
        if done.returncode != 0:
            reason = " ".join((done.stderr or done.stdout).split())
            raise InputError(f"{path}: sbatch refuses it ({reason}); mend cluster.options and submit again")
        numbers[job.name] = done.stdout.strip().partition(";")[0]
    return numbers


def _file_name(job: Job) -> str:
    return job.name.replace("/", "-")
