"""A model, a source and jobs small enough that a run of forty steps takes a second."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from megasbp.addressing import derive_key
from megasbp.data.batch import MASKED, PADDING, Batch
from megasbp.model.config import ModelConfig
from megasbp.model.transformer import Transformer
from megasbp.parallel.fp8 import Scaling
from megasbp.parallel.parallelize import BlockOptions, parallel_model
from megasbp.parallel.pipeline import Pipeline
from megasbp.parallel.recompute import Mode
from megasbp.parallel.runtime import Runtime
from megasbp.parallel.shards import initialize_shards
from megasbp.storage import hash_object
from megasbp.training.config import TrainingConfig
from megasbp.training.job import TrainingJob
from megasbp.training.optimizer import follow_table

VOCABULARY = 61
SEQUENCE = 24
MODES: tuple[Mode, ...] = get_args(Mode)


class RaggedSource:
    """Rows of two segments with padding, and labels only in part of them: from 0 to S - 1 a row.

    The text is a noisy cycle through the vocabulary, so that a model learns something of it.
    """

    def __init__(self, seed: int, samples: int = 64) -> None:
        self.seed = seed
        self.sequence_length = SEQUENCE
        self.samples_per_epoch = samples
        self.fingerprint = hash_object({"ragged": seed, "samples": samples})
        self.read: list[int] = []

    def batch(self, indices: np.ndarray) -> Batch:
        self.read += indices.tolist()
        rows = [self._row(int(index)) for index in indices]
        return Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))

    def _row(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        random = np.random.Generator(np.random.Philox(key=derive_key(self.seed, "row", index)))
        border, end = 7, int(random.integers(14, SEQUENCE + 1))
        tokens = (random.integers(VOCABULARY) + np.arange(SEQUENCE)) % VOCABULARY
        noisy = random.random(SEQUENCE) < 0.1
        tokens[noisy] = random.integers(VOCABULARY, size=int(noisy.sum()))
        segments = np.where(np.arange(SEQUENCE) < border, 0, 1)
        positions = np.arange(SEQUENCE) - border * segments
        labels = np.roll(tokens, -1)
        labels[[border - 1, end - 1]] = MASKED
        labels[: int(random.integers(0, end))] = MASKED
        tokens[end:], labels[end:], segments[end:] = 0, MASKED, PADDING
        return tokens, labels, positions, segments


def model_config(**changes: Any) -> ModelConfig:
    return ModelConfig(
        **{
            "vocabulary_size": VOCABULARY,
            "layers": 2,
            "width": 16,
            "heads": 2,
            "kv_heads": 2,
            "head_dim": 8,
            "feed_forward": 32,
            "rope_theta": 10_000.0,
            "norm_epsilon": 1e-5,
            "qk_norm": True,
            "tied": True,
            "maximum_positions": 64,
            **changes,
        }
    )


def initial_model(
    config: ModelConfig,
    runtime: Runtime,
    dtype: torch.dtype = torch.float32,
    checkpointing: Mode = "none",
    compiled: bool = False,
    fp8: Scaling | None = None,
) -> Transformer | Pipeline:
    """A rank's part of a model; float64 is also the type of its parameters."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.promote_types(dtype, torch.float32))
    try:
        options = BlockOptions(checkpointing, compiled, fp8)
        model = parallel_model(config, runtime, dtype, options, SEQUENCE)
    finally:
        torch.set_default_dtype(usual)
    initialize_shards(model, config, 3)
    follow_table(model)
    return model


def training_config(**changes: Any) -> TrainingConfig:
    return TrainingConfig(
        **{
            "sequence_length": SEQUENCE,
            "global_batch": 8,
            "micro_batch": 4,
            "learning_rate": 1e-2,
            "precision": "fp32",
            "validations": 4,
            "checkpoints": 5,
            **changes,
        }
    )


def training_job(folder: Path, **changes: Any) -> TrainingJob:
    """A job of 20 steps; `training` and `model` may be dictionaries of changes."""
    training = changes.pop("training", {})
    model = changes.pop("model", {})
    values: dict[str, Any] = {
        "name": "small",
        "model": model_config(**model),
        "training": training_config(**training),
        "source": RaggedSource(1),
        "steps": 20,
        "seed": 5,
        "folder": folder,
        "validation": RaggedSource(2, samples=6),
        "initial_checkpoint": None,
    }
    return TrainingJob(**{**values, **changes})


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a job's metrics.jsonl, in the order of the steps."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
