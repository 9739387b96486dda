"""Shards written by workers: processes of this machine, or of a Ray cluster."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.shards.config import ShardsConfig
from megasbp.shards.engine import run_shards
from megasbp.shards.progress import print_line
from megasbp.storage import Manifest
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.exchange import Completion, Request
from megasbp.synthesis.generator import load_generator
from megasbp.synthesis.ledger import MARKS, drawn_tokens
from megasbp.synthesis.progress import Meter
from megasbp.synthesis.provenance import Origin, compute_environment, engine_of
from megasbp.synthesis.requests import Marks
from megasbp.synthesis.shard_store import ShardStore
from megasbp.synthesis.vllm_writer import exported_model, remove_exported, vllm_engine

# Of the shards that seem to be needed, this share is written before it is looked again.
_CAUTION = 0.9


class WorkersWriter:
    """Has the shards written that are sure to be needed, then the likely rest, until it is enough.

    Args:
        config: of the workers. Each loads the model on the first of its GPUs, or on the CPU where it has
            none, and writes whole shards: the slots drain at the end of each, so shards should hold many
            times `slots` documents.
        checkpoint: the synthesizer.
        announce: receives one line per attempt that failed.
    """

    def __init__(
        self, config: ShardsConfig, checkpoint: Path, announce: Callable[[str], None] | None = print_line
    ) -> None:
        self._config, self._checkpoint, self._announce = config, checkpoint, announce

    def write_until_enough(self, store: ShardStore, take: Callable[[int], bool], meter: Meter) -> int:
        """See `synthesize.ShardWriter`."""
        indexes = store.folder.parent / "indexes"
        store.corpus_index.save(indexes / "corpus")
        store.held_out_index.save(indexes / "held_out")
        paths = {
            "checkpoint": self._checkpoint,
            "corpus_index": indexes / "corpus",
            "held_out_index": indexes / "held_out",
        }
        if store.seed_dataset is not None:
            paths["seed_dataset"] = store.seed_dataset.prefix
        if store.config.backend == "vllm":
            paths["exported"] = exported_model(store, self._checkpoint)
        taken = 0
        enough = False
        waiting: set[int] = set()

        def finished(shard: int, _: Manifest, made: bool) -> None:
            # Taken in order, whichever worker was quicker: so the corpus ends at the same shard.
            nonlocal taken, enough
            waiting.add(shard)
            if made:
                meter.count(drawn_tokens(store.table(shard)))
            while not enough and taken in waiting:
                enough = take(taken)
                taken += 1

        meter.start()
        while not enough:
            run_shards(
                write_shard,
                range(taken, taken + likely_shards(store, meter)),
                store.folder,
                settings=store.settings,
                inputs=store.inputs,
                paths=paths,
                config=self._config,
                announce=self._announce,
                finished=finished,
            )
        shutil.rmtree(indexes)
        remove_exported(store)
        return taken


def likely_shards(store: ShardStore, meter: Meter) -> int:
    """Shards to write next: nearly as many as are needed, hardly ever more, at least one."""
    ledger = meter.ledger
    if ledger.requests:
        tokens_per_request = ledger.tokens / ledger.requests / _CAUTION
    else:
        tokens_per_request = min(store.config.maximum_tokens, store.context) + MARKS
    tokens_per_shard = max(1.0, tokens_per_request * store.config.shard_documents)
    return max(1, int((meter.need_tokens - ledger.tokens) / tokens_per_shard))


def write_shard(shard: int, folder: Path, **arguments: Any) -> None:
    """Stage function: generates and filters one shard, see `ShardStore.write`.

    Args:
        arguments: `ShardStore.settings`, and the paths that `WorkersWriter` names.
    """
    opened = _open(json.dumps(arguments, default=str, sort_keys=True))
    store = opened.store
    completions = opened.engine.generate(list(store.requests([shard])), store.config.maximum_tokens)
    store.write(shard, completions, opened.origin, folder)


class _Engine(Protocol):
    """Our own or vLLM."""

    def generate(self, requests: Sequence[Request], maximum_tokens: int) -> list[Completion]: ...


@dataclass(frozen=True)
class _Opened:
    store: ShardStore
    engine: _Engine
    origin: Origin


@lru_cache(maxsize=1)
def _open(arguments: str) -> _Opened:
    """What a worker keeps from one shard to the next."""
    given = json.loads(arguments)
    checkpoint, exported = Path(given.pop("checkpoint")), given.pop("exported", None)
    # Without seed documents the settings say what else the seed dataset does.
    seeds = IndexedDataset(Path(given.pop("seed_dataset"))) if "seed_dataset" in given else None
    dtype = np.dtype(given.pop("dtype")) if seeds is None else seeds.dtype
    store = ShardStore(
        folder=Path(),
        seed=given.pop("seed"),
        context=given.pop("context"),
        checkpoint_hash=given.pop("checkpoint_hash"),
        tokenizer=Marks(**given.pop("tokenizer")),
        seed_dataset=seeds,
        dtype=dtype,
        corpus_index=NgramIndex.load(Path(given.pop("corpus_index"))),
        held_out_index=NgramIndex.load(Path(given.pop("held_out_index"))),
        config=SynthesisConfig(**given),
    )
    if exported is not None:
        vllm = vllm_engine(Path(exported), store)
        return _Opened(store, vllm, store.origin(vllm.environment))
    # A worker that asked for no GPU sees none.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_generator(checkpoint, device, store.config.precision, store.config.batch_invariant)
    origin = store.origin(compute_environment(model))
    engine = engine_of(asdict(origin), model, store.tokenizer.eos, store.config.cuda_graphs)
    return _Opened(store, engine, origin)
