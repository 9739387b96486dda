"""The inline engine: shards one after another in the process that asks for them."""

from megasbp.shards.attempt import attempt_shard
from megasbp.shards.job import Job, Outcome


class InlinePool:
    """Room for one shard, which is made while its outcome is waited for."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._shard: int | None = None

    def __enter__(self) -> "InlinePool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        pass

    def has_room(self) -> bool:
        """Whether another shard can be begun now."""
        return self._shard is None

    def submit(self, shard: int) -> None:
        """Takes note of a shard; needs room."""
        self._shard = shard

    def wait(self, seconds: float) -> list[Outcome]:
        """The outcome of the shard, however long it takes."""
        assert self._shard is not None
        shard, self._shard = self._shard, None
        return [attempt_shard(self._job, shard)]
