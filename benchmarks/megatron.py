"""megatron-core as a peer: its indexed dataset and GPTDataset, as its own tools set them up."""

import importlib.util
import logging
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

PACKAGE = "megatron-core"
_EOD = 2


def missing() -> str:
    """Empty, or what has to be done to have the peer."""
    if importlib.util.find_spec("megatron") is None:
        return "megatron-core is not installed: pip install --no-deps megatron-core"
    return ""


def gpt_dataset(prefix: Path, length: int, *, resets: bool) -> Any:
    """A GPTDataset over one epoch, without attention masks, as one trains with FlashAttention.

    Args:
        resets: what Megatron-LM's --reset-position-ids, --reset-attention-mask and --eod-mask-loss ask for.
    """
    _quiet()
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    tokenizer = SimpleNamespace(
        vocab_size=50_000, eod=_EOD, pad=-1, unique_identifiers={"class": "benchmark"}
    )
    config = GPTDatasetConfig(
        random_seed=0,
        sequence_length=length,
        split="1,0,0",
        tokenizer=tokenizer,
        reset_position_ids=resets,
        reset_attention_mask=resets,
        eod_mask_loss=resets,
        create_attention_mask=False,
    )
    dataset = IndexedDataset(str(prefix))
    indices = np.arange(len(dataset), dtype=np.int32)
    return GPTDataset(dataset, str(prefix), indices, None, Split.train, config)


def builder(prefix: Path, dtype: type) -> Any:
    """An IndexedDatasetBuilder that writes prefix.bin."""
    _quiet()
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    return IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)


def _quiet() -> None:
    """Importing it warns about every optional package that is not there."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
