"""Shards written by vLLM in this process, and the folder that it reads the model from."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

from megasbp.storage import hash_object
from megasbp.synthesis.ledger import drawn_tokens
from megasbp.synthesis.progress import Meter
from megasbp.synthesis.shard_store import ShardStore
from megasbp.synthesis.vllm_engine import VllmEngine, require_vllm
from megasbp.training.conversion import export_checkpoint

_EXPORTED = "hugging_face"


class VllmWriter:
    """Writes shard after shard; vLLM starts with the first that is missing.

    Args:
        checkpoint: the synthesizer.
    """

    def __init__(self, checkpoint: Path) -> None:
        require_vllm()
        self._checkpoint = checkpoint

    def write_until_enough(self, store: ShardStore, take: Callable[[int], bool], meter: Meter) -> int:
        """See `synthesize.ShardWriter`."""
        engine: VllmEngine | None = None
        for shard in itertools.count():
            if not store.has(shard):
                if engine is None:
                    engine = vllm_engine(exported_model(store, self._checkpoint), store)
                    meter.start()
                completions = engine.generate(list(store.requests([shard])), store.config.maximum_tokens)
                store.publish(shard, completions, store.origin(engine.environment))
                meter.count(drawn_tokens(store.table(shard)))
            if take(shard):
                remove_exported(store)
                return shard + 1
        raise AssertionError("there is no last shard")


def vllm_engine(folder: Path, store: ShardStore) -> VllmEngine:
    """vLLM with an exported model, for the requests of a store."""
    return VllmEngine(
        folder,
        store.config,
        context=store.context,
        stop_token=store.tokenizer.eos,
        key=store.noise_key,
    )


def exported_model(store: ShardStore, checkpoint: Path) -> Path:
    """The checkpoint as a Hugging Face folder beside the shards; written unless an earlier start has."""
    folder = store.folder.parent / f"{_EXPORTED}-{hash_object(store.checkpoint_hash)[:10]}"
    if not folder.is_dir():
        export_checkpoint(checkpoint, folder)
    return folder


def remove_exported(store: ShardStore) -> None:
    """Removes what `exported_model` wrote."""
    for folder in store.folder.parent.glob(f"{_EXPORTED}-*"):
        shutil.rmtree(folder)
