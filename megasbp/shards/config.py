"""The section [shards] of a recipe: where shards are worked on and with what."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ShardsConfig(BaseModel):
    """How the tasks of a sharded stage run. None of it changes the name or the key of what they publish.

    Attributes:
        engine: "inline", this process, one shard after another, with all that it has; "local", processes of
            this machine; "ray", a Ray cluster whose nodes all see the folder that is written.
        workers: shards at a time; None for as many as the processors, GPUs and memory allow.
        address: of a running Ray cluster, "auto" for the one of this machine; None starts one here and ends
            it with the run.
        cpus: processors of a task.
        gpus: GPUs of a task; a part of one (0.5) lets several tasks share it. Other GPUs are hidden from it.
        memory_gb: memory a task is expected to need, in 10^9 bytes; bounds how many run at a time.
        threads: of a task's libraries (OpenMP, MKL, OpenBLAS, rayon); None for `cpus`.
        attempts: times a shard is begun before its failures stop the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["inline", "local", "ray"] = "local"
    workers: int | None = Field(None, ge=1)
    address: str | None = Field(None, min_length=1)
    cpus: int = Field(1, ge=1)
    gpus: float = Field(0, ge=0, allow_inf_nan=False)
    memory_gb: float | None = Field(None, gt=0, allow_inf_nan=False)
    threads: int | None = Field(None, ge=1)
    attempts: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        given = self.model_fields_set - {"engine", "attempts"}
        if self.engine == "inline" and given:
            name = min(given)
            raise ValueError(
                f'shards.{name} is {getattr(self, name)!r} and shards.engine is "inline", which has the '
                'process as it is; set engine = "local" or "ray"'
            )
        if self.address is not None and self.engine != "ray":
            raise ValueError(
                f'shards.address is {self.address!r} and shards.engine is "{self.engine}"; '
                'set engine = "ray" or leave the address out'
            )
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"shards.gpus is {self.gpus}; allowed: 0, a part of one GPU, or a whole number")
        return self

    @property
    def thread_variables(self) -> dict[str, str]:
        """Environment variables that bound a task's threads; they count only before the libraries load."""
        threads = str(self.threads or self.cpus)
        libraries = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "RAYON")
        return {f"{library}_NUM_THREADS": threads for library in libraries}


INLINE = ShardsConfig(engine="inline")
