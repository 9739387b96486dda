"""Writes one synthetic document again from its row of provenance."""

from collections.abc import Mapping
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
    row: Mapping[str, Any],
    *,
    model: Transformer,
    tokenizer: TokenMarks,
    seed_dataset: IndexedDataset | None,
    checkpoint_hash: str,
) -> Completion:
    """The document of a row of provenance, dropped ones too, bit for bit.

    Args:
        row: one row of the provenance Parquet, as `table.to_pylist()[i]`.
        seed_dataset: None for a document that was written without a seed.
        checkpoint_hash: of `model`, as it was given to `synthesize`.

    Raises:
        InputError: another engine than our own wrote it, or model, tokenizer, seed dataset, device, dtype,
            threads or torch differ from the row's.
    """
    require_same_origin(
        row,
        {
            "backend": OWN,
            "checkpoint": checkpoint_hash,
            "tokenizer": tokenizer.hash,
            "seed_dataset": fingerprint_of(seed_dataset),
            **compute_environment(model),
        },
    )
    request = Prompts(seed_dataset, tokenizer, row["capacity"]).request(row["seed_doc"], row["draw"])
    return engine_of(row, model, tokenizer.eos).generate([request], row["maximum_tokens"])[0]
