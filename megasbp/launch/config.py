"""The recipe's section [cluster]: what each kind of stage runs on. No stage's name or key depends on it."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from megasbp.parallel.config import ParallelConfig

Kind = Literal["data", "inference", "training", "tuning", "evaluation"]
# Their stages are one process; what they spread, they spread by [shards].
ONE_PROCESS: tuple[Kind, ...] = ("data", "inference")
# What stopping leaves of the time before a job's limit.
_SECONDS_TO_REQUEUE = 30


class Resources(BaseModel):
    """What one kind of stage runs on.

    Attributes:
        nodes: hosts.
        processes: ranks of each host; on hosts with GPUs as many as those.
        gpus: GPUs of each host that Slurm is asked for.
        cpus: processor cores of each host that Slurm is asked for; 0 for what it gives by itself, which may
            be one.
        parallel: layout of the ranks; None for the recipe's section [parallel].
        options: further options of sbatch, e.g. "--partition=gpu".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: int = Field(1, ge=1)
    processes: int = Field(1, ge=1)
    gpus: int = Field(0, ge=0)
    cpus: int = Field(0, ge=0)
    parallel: ParallelConfig | None = None
    options: tuple[str, ...] = ()

    @property
    def ranks(self) -> int:
        """Ranks on all hosts together."""
        return self.nodes * self.processes


class ClusterConfig(BaseModel):
    """What each kind of step gets.

    Attributes:
        data: corpus, pair tables, quality, report: one process. The search for neighbours is among them: its
            shards take the GPUs that [shards] asks for.
        inference: embedding and synthesis: one process, which [shards] spreads over the GPUs of its host or
            over a Ray cluster; downstream tasks: one process on one GPU.
        training: the arms.
        tuning: the synthesizers, whose context is longer than the arms' sequences.
        evaluation: pair value and held-out losses: the ranks share the rows, each holds the whole model.
        options: of sbatch, for every job, e.g. "--account=me".
        maximum_restarts: times that a host's agent starts failed ranks again before the stage has failed.
        port: of the agents' rendezvous, where no endpoint names one.
        requeue_before: seconds before a job's time limit at which Slurm has it stop and puts it back into its
            queue. A checkpoint is written in that time: give it several steps' worth.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Resources = Resources()
    inference: Resources = Resources()
    training: Resources = Resources()
    tuning: Resources = Resources()
    evaluation: Resources = Resources()
    options: tuple[str, ...] = ()
    maximum_restarts: int = Field(3, ge=0)
    port: int = Field(29400, ge=1, le=65535)
    requeue_before: int = Field(300, ge=60)

    @property
    def seconds_to_stop(self) -> int:
        """After which ranks that were asked to stop are killed."""
        return self.requeue_before - _SECONDS_TO_REQUEUE

    @model_validator(mode="after")
    def _kinds_agree(self) -> Self:
        for kind in ONE_PROCESS:
            resources = self.of(kind)
            if resources.ranks > 1:
                raise ValueError(
                    f"cluster.{kind} has {resources.nodes} nodes x {resources.processes} processes, but such "
                    "stages are one process; set both to 1, and spread the work by the section [shards]"
                )
        for kind in (*ONE_PROCESS, "evaluation"):
            if self.of(kind).parallel is not None:
                raise ValueError(
                    f"cluster.{kind}.parallel is set, but nothing is laid out there; leave it out"
                )
        return self

    def of(self, kind: Kind) -> Resources:
        """What a kind of stage runs on."""
        return {
            "data": self.data,
            "inference": self.inference,
            "training": self.training,
            "tuning": self.tuning,
            "evaluation": self.evaluation,
        }[kind]
