"""What the parity matrix runs: layouts of the ranks, models, types of numbers, and sources of rows."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from data_reference import BOS, EOS, SEP, write_dataset
from training_world import SEQUENCE, RaggedSource, model_config

from megasbp.data.pairs import PairSource
from megasbp.data.sources import SampleSource
from megasbp.model.config import ModelConfig
from megasbp.parallel.config import ParallelConfig, Schedule
from megasbp.parallel.fp8 import Scaling
from megasbp.parallel.recompute import Mode

SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}
_MODELS = {
    "tied": {"tied": True},
    "untied, grouped queries": {"tied": False, "heads": 8},
    # Norms of queries shorter than the ranks that share them: the last ranks hold nothing of one.
    "tied, heads of 2": {"tied": True, "head_dim": 2},
    "tied, heads of 2, 5 layers": {"tied": True, "head_dim": 2, "layers": 5},
    "tied, no norms of queries, µP": {"tied": True, "qk_norm": False, "mup_base_width": 8},
    # Layers that no number of stages divides.
    "tied, 5 layers": {"tied": True, "layers": 5},
    "untied, 5 layers": {"tied": False, "layers": 5},
    "tied, 9 layers": {"tied": True, "layers": 9},
    "untied, 9 layers": {"tied": False, "layers": 9},
}
SOURCES = ("ragged", "pairs")


@dataclass(frozen=True)
class Case:
    """Two optimiser steps of a model at a layout."""

    parallel: ParallelConfig
    model: str = "tied"
    dtype: str = "fp64"
    source: str = "ragged"
    micro_batch: int = 2
    checkpointing: Mode = "none"
    compiled: bool = False
    fp8: Scaling | None = None

    def __str__(self) -> str:
        more = "" if self.checkpointing == "none" else f", checkpointing {self.checkpointing}"
        more += ", compiled" if self.compiled else ""
        more += f", fp8 {self.fp8}" if self.fp8 is not None else ""
        return f"{layout_name(self.parallel)}, {self.model}, {self.dtype}, {self.source}{more}"

    @property
    def reference(self) -> tuple[str, str, str]:
        """What one process computes for it."""
        return self.model, self.dtype, self.source


def layout_name(parallel: ParallelConfig) -> str:
    axes = (("pp", "pipeline"), ("replicate", "replicate"), ("cp", "context"), ("tp", "tensor"))
    named = [f"{short}{getattr(parallel, name)}" for short, name in axes if getattr(parallel, name) > 1]
    if parallel.pipeline > 1:
        named.insert(1, parallel.schedule)
    if parallel.asynchronous_tensor:
        named.append("asynchronous")
    return " ".join(named) or "shard only"


def layouts_of(ranks: int) -> list[ParallelConfig]:
    """Every layout of so many ranks; those that no axis takes shard the parameters."""
    divisors = [size for size in range(1, ranks + 1) if ranks % size == 0]
    return [
        ParallelConfig(pipeline=pipeline, replicate=replicate, context=context, tensor=tensor)
        for pipeline, replicate, context, tensor in itertools.product(divisors, repeat=4)
        if ranks % (pipeline * replicate * context * tensor) == 0
    ]


def config_of(model: str) -> ModelConfig:
    """Of sizes that 4 ranks can share."""
    return model_config(**{"vocabulary_size": 64, "heads": 4, "kv_heads": 4, **_MODELS[model]})


def source_of(name: str, folder: Path) -> SampleSource:
    """Ragged rows of two segments, or the pairs of synthesizer tuning; `folder` is the caller's own."""
    if name == "ragged":
        return RaggedSource(1)
    random = np.random.default_rng(0)
    documents = [[BOS, *random.integers(10, 64, length).tolist(), EOS] for length in range(1, 15)]
    written = write_dataset(folder / "documents", documents)
    seeds, targets = random.permutation(len(documents) ** 2), random.permutation(len(documents) ** 2)
    return PairSource(
        written, written, seeds % len(documents), targets // len(documents), SEQUENCE, SEP, seed=4
    )
