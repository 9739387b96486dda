"""A synthesizer small enough to run hundreds of times: two random layers, 12 tokens, short documents."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.model import paged_cache
from megasbp.model.config import ModelConfig
from megasbp.model.transformer import Transformer
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.synthesis import engine
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.engine import Engine
from megasbp.synthesis.exchange import Completion, Request
from megasbp.synthesis.streaming import StreamingWriter
from megasbp.synthesis.synthesize import SynthesisResult, synthesize

VOCABULARY, BOS, EOS, SEP = 12, 0, 1, 2
CONTEXT = 64
WEIGHT_SCALE = 0.16
WIDTH = 3
CHECKPOINT = "checkpoint of the tiny model"


@dataclass(frozen=True)
class Marks:
    """What synthesis needs of a tokenizer."""

    bos: int = BOS
    eos: int = EOS
    sep: int = SEP
    hash: str = "tokenizer of the tiny model"
    vocabulary_size: int = VOCABULARY


def tiny_model() -> Transformer:
    """Random weights, so large that a token depends on all before it; documents end by themselves."""
    config = ModelConfig(
        vocabulary_size=VOCABULARY,
        layers=2,
        width=32,
        heads=4,
        kv_heads=2,
        head_dim=8,
        feed_forward=64,
        rope_theta=10_000.0,
        norm_epsilon=1e-5,
        qk_norm=True,
        tied=False,
        maximum_positions=CONTEXT,
    )
    model = Transformer(config)
    rng = np.random.default_rng(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            weights = rng.normal(0, WEIGHT_SCALE, parameter.shape)
            parameter.copy_(
                torch.ones(parameter.shape) if name.endswith("norm.weight") else torch.tensor(weights)
            )
    return model.eval()


def make_requests(count: int) -> list[Request]:
    """Requests with prompts of 1 to 30 tokens, so of no chunk, one or several."""
    rng = np.random.default_rng(7)
    return [
        Request(int(rng.integers(1000)), index % 3, rng.integers(3, VOCABULARY, size=rng.integers(1, 31)))
        for index in range(count)
    ]


def make_engine(model: Transformer, **changed: object) -> Engine:
    """Eight slots, three of them read at once, chunks of eight."""
    settings: dict = {
        "slots": 8,
        "capacity": CONTEXT,
        "prefill_slots": 3,
        "prefill_chunk": 8,
        "stop_token": EOS,
        "temperature": 1.0,
        "top_p": 0.95,
        "key": 2**64 - 5,
    }
    return Engine(model, **(settings | changed))


def same(completions: Sequence[Completion], others: Sequence[Completion]) -> bool:
    """Whether two lists hold the same documents, ended for the same reason."""
    return all(
        np.array_equal(one.tokens, other.tokens) and one.finish_reason == other.finish_reason
        for one, other in zip(completions, others, strict=True)
    )


def token_of_bits(logits: torch.Tensor, *rest: object) -> torch.Tensor:
    """In place of `sample`: any differing bit of the logits sends a document another way."""
    return torch.tensor([zlib.crc32(row.numpy().tobytes()) % VOCABULARY for row in logits])


def make_pages_small(monkeypatch) -> None:
    """Pages of 16 tokens."""
    monkeypatch.setattr(paged_cache, "PAGE_TOKENS", 16)
    monkeypatch.setattr(engine, "PAGE_TOKENS", 16)


def open_seeds(folder: Path) -> IndexedDataset:
    """A dataset of 20 random seed documents."""
    prefix = folder / "seeds"
    if not prefix.with_suffix(".json").exists():
        rng = np.random.default_rng(3)
        metadata = {"tokenizer": Marks().hash, "bos": BOS, "eos": EOS, "source": "random"}
        with IndexedDatasetWriter(prefix, np.uint16, metadata=metadata) as writer:
            for _ in range(20):
                writer.add_document(np.r_[BOS, rng.integers(3, VOCABULARY, size=rng.integers(3, 36)), EOS])
    return IndexedDataset(prefix)


HELD_OUT = np.array([3, 4, 5, 6, 7, 8, 9, 10, 3, 5, 7, 9])

CONFIG = SynthesisConfig(
    maximum_tokens=24,
    temperature=0.6,
    slots=8,
    prefill_slots=3,
    prefill_chunk=8,
    shard_documents=25,
    minimum_tokens=2,
    maximum_repeated_share=0.2,
    maximum_seed_copy=0.25,
    maximum_corpus_copy=0.8,
)


def run(folder: Path, model: Transformer, seeds: IndexedDataset, **changed: object) -> SynthesisResult:
    """Synthesises a corpus of a few shards in `folder`, in silence."""
    arguments: dict = {
        "writer": StreamingWriter(model),
        "tokenizer": Marks(),
        "seed_dataset": seeds,
        "dtype": np.uint16,
        "corpus_index": NgramIndex.build([seeds], WIDTH),
        "held_out_index": NgramIndex.build([HELD_OUT], WIDTH),
        "config": CONFIG,
        "need_tokens": 400,
        "context": CONTEXT,
        "seed": 5,
        "folder": folder,
        "checkpoint_hash": CHECKPOINT,
        "progress": None,
    }
    return synthesize(**(arguments | changed))


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
