"""Writes synthetic documents again from their rows of provenance."""

from collections.abc import Mapping, Sequence
from typing import Any

from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.model.transformer import Transformer
from megasbp.synthesis.exchange import Completion
from megasbp.synthesis.provenance import (
    OWN,
    compute_environment,
    engine_of,
    fingerprint_of,
    require_same_origin,
)
from megasbp.synthesis.requests import Prompts, TokenMarks


def regenerate(
    rows: Sequence[Mapping[str, Any]],
    *,
    model: Transformer,
    tokenizer: TokenMarks,
    seed_dataset: IndexedDataset | None,
    checkpoint_hash: str,
) -> list[Completion]:
    """The documents of rows of one run's provenance, dropped ones too, bit for bit.

    Args:
        rows: of the provenance Parquet, as in `table.to_pylist()`.
        seed_dataset: None for documents that were written without a seed.
        checkpoint_hash: of `model`, as it was given to `synthesize`.

    Raises:
        InputError: another engine than our own wrote them, or model, tokenizer, seed dataset, device, dtype,
            threads or torch differ from a row's.
    """
    if not rows:
        return []
    origin = {
        "backend": OWN,
        "checkpoint": checkpoint_hash,
        "tokenizer": tokenizer.hash,
        "seed_dataset": fingerprint_of(seed_dataset),
        **compute_environment(model),
    }
    for row in rows:
        require_same_origin(row, origin)
    first = rows[0]
    prompts = Prompts(seed_dataset, tokenizer, first["capacity"])
    requests = [prompts.request(row["seed_doc"], row["draw"]) for row in rows]
    return engine_of(first, model, tokenizer.eos).generate(requests, first["maximum_tokens"])
