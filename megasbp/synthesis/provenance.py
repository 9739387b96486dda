"""Where each synthetic document comes from: a row per request, enough to write it again bit for bit."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.errors import InputError
from megasbp.model.batch_invariant import is_batch_invariant
from megasbp.model.transformer import Transformer
from megasbp.synthesis.decode_graph import Graphs
from megasbp.synthesis.engine import Engine
from megasbp.synthesis.exchange import Completion
from megasbp.synthesis.filters import ALONE, Measurements

# Our own engine, as an `Origin` names it.
OWN = "own"


@dataclass(frozen=True)
class Origin:
    """What all documents of a run share: the generator, the sampler and the compute shape.

    Attributes:
        checkpoint: hash of the synthesizer's checkpoint.
        tokenizer: hash of the tokenizer.
        seed_dataset: fingerprint of the dataset of seed documents; empty without one.
        noise_key: key of the draws, in [0, 2**64).
        temperature, top_p, maximum_tokens: of the sampler.
        capacity: positions of a slot; also the context that the prompt was cut for.
        slots, prefill_slots, prefill_chunk: compute shape of the engine.
        device: "cpu", or the accelerator's name.
        dtype: compute dtype, such as "float32".
        threads: CPU threads of torch.
        torch: its version.
        backend: "own", or "vllm VERSION SETTINGS", whose bytes are not promised: there `prefill_slots` and
            `prefill_chunk` are 0, since vLLM chooses its shapes as it goes.
        batch_invariant: of our own engine; the bytes do not depend on the compute shape then.
    """

    checkpoint: str
    tokenizer: str
    seed_dataset: str
    noise_key: int
    temperature: float
    top_p: float
    maximum_tokens: int
    capacity: int
    slots: int
    prefill_slots: int
    prefill_chunk: int
    device: str
    dtype: str
    threads: int
    torch: str
    backend: str = OWN
    batch_invariant: bool = False


def fingerprint_of(seed_dataset: IndexedDataset | None) -> str:
    """How an `Origin` names the seed documents."""
    return "" if seed_dataset is None else seed_dataset.fingerprint


def compute_environment(model: Transformer) -> dict[str, Any]:
    """The part of an `Origin` that the machine and our own engine decide."""
    device = next(model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "dtype": str(model.compute_dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "backend": OWN,
        "batch_invariant": is_batch_invariant(model),
    }


_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    float: pa.float64(),
    int: pa.int64(),
    bool: pa.bool_(),
}
_ORIGIN = [
    pa.field(item.name, pa.uint64() if item.name == "noise_key" else _TYPES[item.type])
    for item in fields(Origin)
]

# Rows of one shard: everything but what depends on earlier shards. `seed_doc` is -1 without a seed document.
SHARD_SCHEMA = pa.schema(
    [
        pa.field("request", pa.int64()),
        pa.field("seed_doc", pa.int64()),
        pa.field("draw", pa.int64()),
        *_ORIGIN,
        pa.field("prompt_tokens", pa.int32()),
        pa.field("shared_tokens", pa.int32()),
        pa.field("length", pa.int32()),
        pa.field("finish_reason", pa.string()),
        pa.field("text_hash", pa.uint64()),
        *(pa.field(item.name, pa.float64()) for item in fields(Measurements)),
        *(pa.field(f"drop_{name}", pa.bool_()) for name in ALONE),
    ]
)

# What rows that were written before these columns say: column -> value.
_BEFORE: dict[str, Any] = {"backend": OWN, "batch_invariant": False, "shared_tokens": 0}

# Rows of the finished corpus. `document` is the place in the synthetic dataset, -1 for a dropped one.
PROVENANCE_SCHEMA = pa.schema(
    [
        *SHARD_SCHEMA,
        pa.field("drop_duplicate", pa.bool_()),
        pa.field("dropped_by", pa.string()),
        pa.field("accepted", pa.bool_()),
        pa.field("document", pa.int64()),
    ]
)


def text_hash(tokens: np.ndarray) -> int:
    """64-bit hash of a document's tokens, equal for equal tokens of any integer dtype."""
    data = np.ascontiguousarray(tokens, "<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def shard_columns(
    requests: np.ndarray,
    seed_documents: np.ndarray,
    draws: np.ndarray,
    prompt_tokens: Sequence[int],
    completions: Sequence[Completion],
    measurements: Sequence[Measurements],
) -> dict[str, np.ndarray]:
    """The columns of a shard that differ from row to row, before the verdicts."""
    columns: dict[str, np.ndarray] = {
        "request": requests,
        "seed_doc": seed_documents,
        "draw": draws,
        "prompt_tokens": np.array(prompt_tokens, np.int32),
        "shared_tokens": np.array([completion.shared_tokens for completion in completions], np.int32),
        "length": np.array([len(completion.tokens) for completion in completions], np.int32),
        "finish_reason": np.array([completion.finish_reason for completion in completions]),
        "text_hash": np.array([text_hash(completion.tokens) for completion in completions], np.uint64),
    }
    for item in fields(Measurements):
        columns[item.name] = np.array([getattr(row, item.name) for row in measurements], np.float64)
    return columns


def shard_table(
    columns: Mapping[str, np.ndarray], drops: Mapping[str, np.ndarray], origin: Origin
) -> pa.Table:
    """The rows of a shard, in the columns of `SHARD_SCHEMA`."""
    rows = len(columns["request"])
    arrays = {name: pa.array(values) for name, values in columns.items()}
    arrays |= {f"drop_{name}": pa.array(drops[name]) for name in ALONE}
    for item in _ORIGIN:
        arrays[item.name] = pa.repeat(pa.scalar(asdict(origin)[item.name], item.type), rows)
    return pa.table(
        [arrays[name].cast(SHARD_SCHEMA.field(name).type) for name in SHARD_SCHEMA.names], SHARD_SCHEMA
    )


def with_all_columns(table: pa.Table) -> pa.Table:
    """The rows of a shard in the columns of `SHARD_SCHEMA`, if it was written before some of them too."""
    for name, value in _BEFORE.items():
        if name not in table.column_names:
            item = SHARD_SCHEMA.field(name)
            table = table.append_column(item, pa.repeat(pa.scalar(value, item.type), len(table)))
    return table.select(SHARD_SCHEMA.names)


def require_same_origin(row: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuses to write a document again where its bytes are not promised.

    Raises:
        InputError: an entry of `expected` differs from the row's; the message names both values.
    """
    for name, value in expected.items():
        if (recorded := row.get(name, _BEFORE.get(name))) != value:
            raise InputError(
                f"provenance of request {row['request']}: {name} was {recorded}, here it is {value}; "
                "a document is written again bit for bit only where this is the same"
            )


def engine_of(
    row: Mapping[str, Any], model: Transformer, stop_token: int, cuda_graphs: Graphs = "auto"
) -> Engine:
    """An engine of the compute shape that a row records."""
    return Engine(
        model,
        slots=row["slots"],
        capacity=row["capacity"],
        prefill_slots=row["prefill_slots"],
        prefill_chunk=row["prefill_chunk"],
        stop_token=stop_token,
        temperature=row["temperature"],
        top_p=row["top_p"],
        key=row["noise_key"],
        cuda_graphs=cuda_graphs,
    )
