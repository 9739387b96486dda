"""From pieces of a corpus to one shard: an indexed dataset, a table of its documents, a quarantine.

A shard's bytes are a pure function of the plan and the settings: neither the other shards nor who makes it,
when or on how many threads change them.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from megasbp.corpus.fast_tokenizer import Encoded, Encoder, HuggingFaceEncoder, Sample, open_encoder
from megasbp.corpus.pieces import Piece
from megasbp.corpus.quarantine import Quarantine
from megasbp.corpus.records import Fields
from megasbp.corpus.texts import Texts, read_texts
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDatasetWriter
from megasbp.errors import InputError
from megasbp.storage import hash_object, publish_json, read_json

DOCUMENTS = "documents"
ENCODERS = ("auto", "gigatoken", "huggingface")
ON_DIFFERENCE = ("stop", "fallback")
# Tokens of a block that stays in the cache.
_TOKENS_AT_ONCE = 1 << 16
# Batches that may wait between two threads, so that neither waits for the other's slowest one.
_BATCHES_AHEAD = 3
_TABLE = pa.schema([("id", pa.large_string()), ("bytes", pa.int64())])

_Item = TypeVar("_Item")


class EncoderError(InputError):
    """An encoder gave other tokens than Hugging Face, or a special token for text."""


def preprocess_shard(
    shard: int,
    folder: Path,
    *,
    plan: Path,
    tokenizer: Path,
    roles: dict[str, str],
    encoder: str,
    sample: int,
    on_difference: str,
    text_field: str,
    id_field: str,
    title_field: str | None,
    maximum_characters: int,
    source: dict[str, str],
) -> dict[str, Any]:
    """Writes documents.{bin,idx,json}, documents.parquet (id, bytes) and quarantine.jsonl of one shard.

    Args:
        shard: number of the shard in the plan.
        folder: where the files go; exists.
        plan: path of a file that `publish_plan` wrote.
        tokenizer: path of a tokenizer.json; roles: names of its "bos", "eos" and "sep".
        encoder: "gigatoken" or "huggingface".
        sample: documents of the shard that are compared with Hugging Face.
        on_difference: "stop", or "fallback": the shard is done again with Hugging Face.
        text_field, id_field, title_field, maximum_characters: see `megasbp.corpus.readers`.
        source: kept in the dataset's metadata.

    Returns:
        Counts: documents, tokens, bytes, rejected, reasons, sampled, and the encoder that was used; with
        "fallback" also what differed, or None.

    Raises:
        InputError: the encoder differs from Hugging Face and `on_difference` is "stop"; a file is missing or
            lacks the text column.
    """
    pieces = [Piece(**piece) for piece in read_json(plan)["shards"][shard]]
    opened = Tokenizer.load(tokenizer, **roles)
    fields = Fields(text_field, id_field, title_field, (), maximum_characters)
    metadata = {
        "tokenizer": opened.hash,
        "bos": opened.bos,
        "eos": opened.eos,
        "sep": opened.sep,
        "source": source,
    }

    def write(by: Encoder) -> dict[str, Any]:
        # A shard may be all bad: the share is judged over the whole run.
        quarantine = Quarantine(folder, maximum_share=1.0)
        try:
            facts = _write(shard, folder, pieces, fields, opened, by, sample, metadata, quarantine)
        except BaseException:
            quarantine.discard()
            raise
        quarantine.close()
        return facts | quarantine.summary()

    if encoder == "huggingface":
        return write(HuggingFaceEncoder(opened)) | {"encoder": encoder, "difference": None}
    try:
        return write(open_encoder(encoder, opened)) | {"encoder": encoder, "difference": None}
    except EncoderError as error:
        if on_difference == "stop":
            raise InputError(
                f"{error}; {encoder} differs from Hugging Face here: report it to {encoder}, and go on "
                "with the encoder huggingface, or with fallback on a difference"
            ) from None
        difference = str(error)
    return write(HuggingFaceEncoder(opened)) | {"encoder": "huggingface", "difference": difference}


def publish_plan(path: Path, shards: Sequence[Sequence[Piece]]) -> str:
    """Writes which pieces make which shard, and when their files were modified.

    Returns the hash of the pieces.

    Raises:
        InputError: another plan lies there; its shards would not fit these.
    """
    pieces = [[asdict(piece) for piece in shard] for shard in shards]
    files = {piece.file: os.stat(piece.file).st_mtime_ns for shard in shards for piece in shard}
    plan = {"shards": pieces, "modified": files}
    if path.exists():
        if read_json(path) != plan:
            raise InputError(
                f"{path}: made of other files, or of files that have changed, or with another shard size; "
                f"use another folder, or remove {path.parent} to start anew"
            )
    else:
        publish_json(path, plan)
    return hash_object(pieces)


def _write(
    shard: int,
    folder: Path,
    pieces: list[Piece],
    fields: Fields,
    tokenizer: Tokenizer,
    encoder: Encoder,
    sample: int,
    metadata: dict[str, Any],
    quarantine: Quarantine,
) -> dict[str, Any]:
    compared = Sample(shard, 0 if isinstance(encoder, HuggingFaceEncoder) else sample)
    text_bytes = 0
    with (
        # No two ids are alike, so a dictionary of them costs time and room.
        pq.ParquetWriter(
            folder / f"{DOCUMENTS}.parquet", _TABLE, compression="zstd", use_dictionary=False
        ) as table,
        IndexedDatasetWriter(folder / DOCUMENTS, token_dtype(tokenizer), metadata=metadata) as writer,
    ):
        for texts, encoded in _ahead(_encoded(_ahead(read_texts(pieces, fields, quarantine)), encoder)):
            _refuse_special_tokens(texts, encoded.tokens, encoded.bounds, tokenizer)
            compared.offer(texts, encoded)
            writer.add_framed_documents(encoded.tokens, encoded.bounds, tokenizer.bos, tokenizer.eos)
            table.write_table(pa.table([texts.ids, texts.bytes], schema=_TABLE))
            text_bytes += int(texts.bytes.sum())
        difference = compared.first_difference(tokenizer)
        if difference is not None:
            raise EncoderError(difference)
    return {
        "documents": writer.documents,
        "tokens": writer.tokens,
        "bytes": text_bytes,
        "sampled": len(compared),
    }


def _refuse_special_tokens(
    texts: Texts, tokens: np.ndarray, bounds: np.ndarray, tokenizer: Tokenizer
) -> None:
    """Text never becomes the token that begins, ends or parts documents."""
    place = _first_of(tokens, (tokenizer.bos, tokenizer.eos, tokenizer.sep))
    if place is not None:
        document = int(np.searchsorted(bounds, place, side="right")) - 1
        raise EncoderError(
            f"{texts.position(document)}: text became the special token {tokens[place]} at token "
            f"{place - int(bounds[document])}"
        )


def _first_of(tokens: np.ndarray, wanted: tuple[int, ...]) -> int | None:
    """Place of the first of the wanted tokens in uint32 [n]; None without one."""
    lowest, span = np.uint32(min(wanted)), np.uint32(max(wanted) - min(wanted))
    for start in range(0, len(tokens), _TOKENS_AT_ONCE):
        block = tokens[start : start + _TOKENS_AT_ONCE]
        # One comparison, for special tokens are neighbours as a rule: what is below the lowest wraps around.
        if (block - lowest <= span).any():
            places = np.flatnonzero(np.isin(block, wanted))
            if len(places):
                return start + int(places[0])
    return None


def token_dtype(tokenizer: Tokenizer) -> type[np.generic]:
    """The narrowest of the types in which datasets are stored here."""
    return np.uint16 if tokenizer.vocabulary_size <= 2**16 else np.int32


def _encoded(batches: Iterator[Texts], encoder: Encoder) -> Iterator[tuple[Texts, Encoded]]:
    return ((texts, encoder.encode(texts)) for texts in batches)


def _ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """The same items, the next ones being made in another thread while this one is used."""
    with ThreadPoolExecutor(1) as thread:
        try:
            following = deque(thread.submit(next, items, None) for _ in range(_BATCHES_AHEAD))
            while (item := following.popleft().result()) is not None:
                yield item
                following.append(thread.submit(next, items, None))
        finally:
            # Whoever stops early does not wait for what was still to be made.
            thread.shutdown(cancel_futures=True)
