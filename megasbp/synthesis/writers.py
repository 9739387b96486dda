"""Who writes the shards: this process or workers, our own engine or vLLM."""

from collections.abc import Callable
from pathlib import Path

import torch

from megasbp.shards.config import ShardsConfig
from megasbp.shards.progress import print_line
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.generator import load_generator
from megasbp.synthesis.streaming import StreamingWriter
from megasbp.synthesis.synthesize import ShardWriter
from megasbp.synthesis.vllm_engine import require_vllm
from megasbp.synthesis.vllm_writer import VllmWriter
from megasbp.synthesis.workers import WorkersWriter


def shard_writer(
    config: SynthesisConfig,
    checkpoint: Path,
    device: torch.device | str,
    shards: ShardsConfig,
    announce: Callable[[str], None] | None = print_line,
) -> ShardWriter:
    """The writer that a recipe asks for.

    Args:
        device: of our own engine in this process; workers take what they are given.
        shards: where shards are written.
        announce: receives one line per attempt of a worker that failed.

    Raises:
        InputError: vLLM is asked for and not installed, or the checkpoint is not whole.
    """
    if config.backend == "vllm":
        require_vllm()
    if shards.engine != "inline":
        return WorkersWriter(shards, checkpoint, announce)
    if config.backend == "vllm":
        return VllmWriter(checkpoint)
    model = load_generator(checkpoint, device, config.precision, config.batch_invariant)
    return StreamingWriter(model)
