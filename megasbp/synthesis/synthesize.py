"""Writes a synthetic corpus: documents drawn from p(d2 | d1), or p(d), filtered, until the tokens are enough.

Shards are generated, filtered and published in order; when the accepted tokens reach the need they are joined
to one dataset with its provenance. A killed run goes on after the last published shard and ends with the same
bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.errors import InputError
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.storage import hash_object, publish_json, publishing_file, read_json, remove_partials
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.ledger import Ledger, kept_alone
from megasbp.synthesis.progress import Meter, SynthesisProgress, print_progress
from megasbp.synthesis.provenance import PROVENANCE_SCHEMA
from megasbp.synthesis.requests import TokenMarks
from megasbp.synthesis.shard_store import ShardStore

_RESULT = "synthesis.json"


@dataclass(frozen=True)
class SynthesisResult:
    """A finished synthetic corpus.

    Attributes:
        dataset_prefix: of the indexed dataset of accepted documents, `bos d2 eos` each.
        provenance_path: Parquet, one row per request (`provenance.PROVENANCE_SCHEMA`).
        documents: documents accepted.
        tokens: their tokens, bos and eos included.
        requests: documents generated.
        drops: filter -> documents that it was the first to drop.
        prefill_tokens: tokens of all prompts that were computed.
        generated_tokens: tokens drawn for all requests, dropped ones and stop tokens included.
        shards: number of shards that the corpus is made of.
        shared_tokens: tokens of prompts that were not computed, since another draw had the same.
    """

    dataset_prefix: Path
    provenance_path: Path
    documents: int
    tokens: int
    requests: int
    drops: dict[str, int]
    prefill_tokens: int
    generated_tokens: int
    shards: int
    shared_tokens: int = 0


class ShardWriter(Protocol):
    """Writes shards: `StreamingWriter` in this process, `WorkersWriter` in others; the bytes are the same."""

    def write_until_enough(self, store: ShardStore, take: Callable[[int], bool], meter: Meter) -> int:
        """Publishes the shards 0, 1, ... that are missing until `take` says that it is enough.

        Args:
            take: called with each published shard, in order; whether no more are needed.
            meter: is told of the drawn tokens.

        Returns:
            The number of shards taken.
        """
        ...


def synthesize(
    *,
    writer: ShardWriter,
    tokenizer: TokenMarks,
    seed_dataset: IndexedDataset | None,
    dtype: npt.DTypeLike,
    corpus_index: NgramIndex,
    held_out_index: NgramIndex,
    config: SynthesisConfig,
    need_tokens: int,
    context: int,
    seed: int,
    folder: Path,
    checkpoint_hash: str,
    progress: Callable[[SynthesisProgress], None] | None = print_progress,
) -> SynthesisResult:
    """Writes `folder`/synthetic.{bin,idx,json}, `folder`/provenance.parquet and the shards they are made of.

    Args:
        writer: has the shards written that are missing.
        tokenizer: names bos, eos, sep; recorded by its hash.
        seed_dataset: documents d1; each is used equally often, up to one. None gives the writer bos alone.
        dtype: of the stored tokens; the seed dataset's, if there is one.
        corpus_index: n-grams of the whole training corpus.
        held_out_index: n-grams of validation and test text that the corpus does not have, of the same width.
        need_tokens: accepted tokens wanted, bos and eos included; the last shard is kept whole.
        context: positions of prompt and document together.
        seed: of the order of the seed documents and of all draws.
        folder: where to write; what an interrupted run of the same settings left there is used.
        checkpoint_hash: of the writer's model, recorded in the provenance.
        progress: called now and then; None for silence.

    Raises:
        InputError: the settings do not fit the model, the folder belongs to another run, or nearly all
            documents are dropped; the message names the mend.
    """
    folder = Path(folder)
    if need_tokens < 1:
        raise InputError(f"need_tokens is {need_tokens}; allowed: 1 or more")
    if corpus_index.width != held_out_index.width:
        raise InputError(
            f"corpus index of {corpus_index.width}-grams and held-out index of {held_out_index.width}-grams; "
            "build both with the same width"
        )
    store = ShardStore(
        folder / "shards",
        seed,
        config,
        context,
        checkpoint_hash,
        tokenizer,
        seed_dataset,
        np.dtype(dtype),
        corpus_index,
        held_out_index,
    )
    key = hash_object({"shards": store.key, "need": need_tokens, "duplicates": config.drop_duplicates})
    if (finished := _read_result(folder, key)) is not None:
        return finished
    remove_partials(folder)
    remove_partials(store.folder)
    ledger = Ledger(config)
    meter = Meter(ledger, need_tokens, progress)

    def take(shard: int) -> bool:
        ledger.add(store.table(shard))
        meter.report()
        if ledger.tokens >= need_tokens:
            return True
        ledger.require_acceptance()
        return False

    shards = writer.write_until_enough(store, take, meter)
    return _publish_corpus(folder, store, shards, key)


def _publish_corpus(folder: Path, store: ShardStore, shards: int, key: str) -> SynthesisResult:
    """Joins the shards: dataset and provenance, and last the note that both belong together."""
    (folder / _RESULT).unlink(missing_ok=True)
    ledger = Ledger(store.config)
    prefix, provenance_path = folder / "synthetic", folder / "provenance.parquet"
    with (
        publishing_file(provenance_path) as partial,
        pq.ParquetWriter(partial, PROVENANCE_SCHEMA, compression="zstd") as rows,
        IndexedDatasetWriter(prefix, store.dtype, metadata=store.metadata) as documents,
    ):
        for shard in range(shards):
            table = ledger.add(store.table(shard))
            rows.write_table(table)
            _copy_accepted(table, store.documents(shard), documents)
    facts: dict[str, Any] = {
        "documents": ledger.documents,
        "tokens": ledger.tokens,
        "requests": ledger.requests,
        "drops": ledger.drops,
        "prefill_tokens": ledger.prompt_tokens,
        "shared_tokens": ledger.shared_tokens,
        "generated_tokens": ledger.generated_tokens,
        "shards": shards,
    }
    publish_json(folder / _RESULT, {"key": key, "facts": facts})
    return SynthesisResult(prefix, provenance_path, **facts)


def _copy_accepted(table: pa.Table, documents: IndexedDataset, writer: IndexedDatasetWriter) -> None:
    # A shard's dataset holds the documents kept alone; of these, the ledger dropped the duplicates.
    accepted = table["accepted"].to_numpy()[kept_alone(table)]
    for position in np.flatnonzero(accepted).tolist():
        writer.add_document(documents.document(position))


def _read_result(folder: Path, key: str) -> SynthesisResult | None:
    """The finished corpus of exactly this run, if it is there."""
    if not (folder / _RESULT).is_file():
        return None
    result = read_json(folder / _RESULT)
    if result["key"] != key:
        return None
    return SynthesisResult(folder / "synthetic", folder / "provenance.parquet", **result["facts"])
