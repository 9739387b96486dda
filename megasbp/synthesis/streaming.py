"""Shards written by this process, one engine for all of them."""

import itertools
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import asdict

from megasbp.model.transformer import Transformer
from megasbp.synthesis.exchange import Completion
from megasbp.synthesis.progress import Meter
from megasbp.synthesis.provenance import Origin, compute_environment, engine_of
from megasbp.synthesis.shard_store import ShardStore


class StreamingWriter:
    """Writes shard after shard; documents of the next are begun while the last ones of a shard are written.

    Args:
        model: the synthesizer, in evaluation mode.
    """

    def __init__(self, model: Transformer) -> None:
        self._model = model

    def write_until_enough(self, store: ShardStore, take: Callable[[int], bool], meter: Meter) -> int:
        """See `synthesize.ShardWriter`."""
        origin = self._origin(store)
        written = self._missing_shards(store, meter)
        for shard in itertools.count():
            if not store.has(shard):
                store.publish(shard, next(written), origin)
            if take(shard):
                written.close()
                return shard + 1
        raise AssertionError("there is no last shard")

    def _origin(self, store: ShardStore) -> Origin:
        return store.origin(compute_environment(self._model))

    def _missing_shards(self, store: ShardStore, meter: Meter) -> Generator[list[Completion], None, None]:
        """Yields the documents of each shard that is missing, in order."""
        size = store.config.shard_documents
        origin, graphs = asdict(self._origin(store)), store.config.cuda_graphs
        engine = engine_of(origin, self._model, store.tokenizer.eos, graphs)
        missing = (shard for shard in itertools.count() if not store.has(shard))
        completions: dict[int, Completion] = {}
        finished: Counter[int] = Counter()
        block = 0
        meter.start()
        for index, completion in engine.stream(store.requests(missing), store.config.maximum_tokens):
            completions[index] = completion
            finished[index // size] += 1
            meter.count(len(completion.tokens) + (completion.finish_reason == "eos"))
            while finished[block] == size:
                yield [completions.pop(block * size + row) for row in range(size)]
                block += 1
