"""Writes a synthetic corpus: documents d2 drawn from p(d2 | d1) and filtered, until there are enough tokens.

Shards are generated, filtered and published in order; when the accepted tokens reach the need they are joined
to one dataset with its provenance. A killed run goes on after the last published shard and ends with the same
bytes.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from megasbp.addressing import derive_key
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.errors import InputError
from megasbp.model.transformer import Transformer
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.storage import hash_object, publish_json, publishing_file, read_json, remove_partials
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.engine import Completion
from megasbp.synthesis.ledger import Ledger, kept_alone
from megasbp.synthesis.progress import Meter, SynthesisProgress, print_progress
from megasbp.synthesis.provenance import PROVENANCE_SCHEMA, Origin, compute_environment, engine_of
from megasbp.synthesis.requests import shard_requests
from megasbp.synthesis.shards import ShardStore

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
        prefill_tokens: tokens of all prompts.
        generated_tokens: tokens drawn for all requests, dropped ones and stop tokens included.
        shards: number of shards that the corpus is made of.
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


def synthesize(
    *,
    model: Transformer,
    tokenizer: Tokenizer,
    seed_dataset: IndexedDataset,
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
        model: the synthesizer, in evaluation mode.
        tokenizer: names bos, eos, sep; recorded by its hash.
        seed_dataset: documents d1; each is used equally often, up to one.
        corpus_index: n-grams of the whole training corpus.
        held_out_index: n-grams of validation and test text, of the same width.
        need_tokens: accepted tokens wanted, bos and eos included; the last shard is kept whole.
        context: positions of prompt and document together.
        seed: of the order of the seed documents and of all draws.
        folder: where to write; what an interrupted run of the same settings left there is used.
        checkpoint_hash: of the model, recorded in the provenance.
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
    origin = Origin(
        checkpoint=checkpoint_hash,
        tokenizer=tokenizer.hash,
        seed_dataset=seed_dataset.fingerprint,
        noise_key=derive_key(seed, "synthesis", "draws"),
        temperature=config.temperature,
        top_p=config.top_p,
        maximum_tokens=config.maximum_tokens,
        capacity=context,
        slots=config.slots,
        prefill_slots=config.prefill_slots,
        prefill_chunk=config.prefill_chunk,
        **compute_environment(next(model.parameters()).device, model.compute_dtype),
    )
    store = ShardStore(
        folder / "shards", seed, config, origin, tokenizer, seed_dataset, corpus_index, held_out_index
    )
    key = hash_object({"shards": store.key, "need": need_tokens, "duplicates": config.drop_duplicates})
    if (finished := _read_result(folder, key)) is not None:
        return finished
    remove_partials(folder)
    remove_partials(store.folder)
    ledger = Ledger(config)
    meter = Meter(ledger, need_tokens, progress)
    written = _write_shards(store, model, meter)
    for shard in itertools.count():
        if not store.has(shard):
            store.publish(shard, next(written))
        ledger.add(store.table(shard))
        meter.report()
        if ledger.tokens >= need_tokens:
            break
        ledger.require_acceptance()
    written.close()
    return _publish_corpus(folder, store, shard + 1, key)


def _write_shards(
    store: ShardStore, model: Transformer, meter: Meter
) -> Generator[list[Completion], None, None]:
    """Yields the documents of each shard that is missing, in order.

    The engine goes on to the next shard while the last documents of one are written, so that no slot waits.
    """
    size = store.config.shard_documents
    engine = engine_of(asdict(store.origin), model, store.tokenizer.eos)
    missing = (shard for shard in itertools.count() if not store.has(shard))
    requests = shard_requests(
        missing, size, store.seed, store.seed_dataset, store.tokenizer, store.origin.capacity
    )
    completions: dict[int, Completion] = {}
    finished: Counter[int] = Counter()
    block = 0
    meter.start()
    for index, completion in engine.stream(requests, store.config.maximum_tokens):
        completions[index] = completion
        finished[index // size] += 1
        meter.count(len(completion.tokens) + (completion.finish_reason == "eos"))
        while finished[block] == size:
            yield [completions.pop(block * size + row) for row in range(size)]
            block += 1


def _publish_corpus(folder: Path, store: ShardStore, shards: int, key: str) -> SynthesisResult:
    """Joins the shards: dataset and provenance, and last the note that both belong together."""
    (folder / _RESULT).unlink(missing_ok=True)
    ledger = Ledger(store.config)
    prefix, provenance_path = folder / "synthetic", folder / "provenance.parquet"
    with (
        publishing_file(provenance_path) as partial,
        pq.ParquetWriter(partial, PROVENANCE_SCHEMA, compression="zstd") as rows,
        IndexedDatasetWriter(prefix, store.seed_dataset.dtype, metadata=store.metadata) as documents,
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
