"""Published shards of generated documents, each a pure function of (run, shard number).

A shard folder holds the documents that pass every filter that looks at one document alone, the provenance of
all its requests, and a manifest. Whether a document repeats an earlier one is decided when shards are read in
order.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.errors import InputError
from megasbp.overlap.documents import content_tokens
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.shards.publication import shard_folder
from megasbp.storage import Manifest, publish_manifest, publishing_folder, read_manifest
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.engine import Completion
from megasbp.synthesis.filters import measure, verdicts
from megasbp.synthesis.provenance import Origin, shard_columns, shard_table
from megasbp.synthesis.requests import build_prompt, locate_requests, shard_numbers

_STAGE = "synthesis shard"
_DOCUMENTS, _PROVENANCE = "documents", "provenance.parquet"


@dataclass(frozen=True)
class ShardStore:
    """The shards of one run below `folder`.

    Attributes:
        folder: holds one folder per shard.
        seed: of the run.
        config: of which the sampler, the compute shape and the filters shape a shard.
        origin: recorded in the provenance.
        tokenizer, seed_dataset: of the prompts.
        corpus_index, held_out_index: what the documents are compared with.
    """

    folder: Path
    seed: int
    config: SynthesisConfig
    origin: Origin
    tokenizer: Tokenizer
    seed_dataset: IndexedDataset
    corpus_index: NgramIndex
    held_out_index: NgramIndex
    _inputs: dict[str, str] = field(init=False)
    _settings: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        inputs = {
            "checkpoint": self.origin.checkpoint,
            "tokenizer": self.origin.tokenizer,
            "seed_dataset": self.origin.seed_dataset,
            "corpus_index": _hash_index(self.corpus_index),
            "held_out_index": _hash_index(self.held_out_index),
        }
        # What the machine decides (threads, versions) is recorded in the rows, not required to be the same:
        # a run may go on elsewhere.
        settings = self.config.model_dump(mode="json", exclude={"drop_duplicates", "minimum_acceptance"})
        settings |= {"context": self.origin.capacity, "seed": self.seed}
        object.__setattr__(self, "_inputs", inputs)
        object.__setattr__(self, "_settings", json.loads(json.dumps(settings)))

    @property
    def key(self) -> str:
        """Hash of everything the shards depend on."""
        return Manifest(_STAGE, self._inputs, self._settings).key

    def path(self, shard: int) -> Path:
        """Folder of a shard."""
        return shard_folder(self.folder, shard)

    def has(self, shard: int) -> bool:
        """Whether the shard is published and whole.

        Raises:
            InputError: it was written by another run; the message names the first setting that differs.
        """
        manifest = read_manifest(self.path(shard))
        if manifest is None:
            return False
        wanted = Manifest(_STAGE, self._inputs, {**self._settings, "shard": shard})
        if manifest.key != wanted.key:
            raise InputError(
                f"{self.path(shard)}: written with {manifest.difference(wanted)}; "
                f"use another folder, or remove {self.folder} to write the corpus anew"
            )
        return True

    def publish(self, shard: int, completions: Sequence[Completion]) -> None:
        """Filters and publishes the documents of a shard.

        Args:
            completions: in the order of the shard's requests.
        """
        numbers = shard_numbers(shard, self.config.shard_documents)
        seed_documents, draws = locate_requests(numbers, len(self.seed_dataset), self.seed)
        seed_tokens = [content_tokens(self.seed_dataset, document) for document in seed_documents.tolist()]
        columns = shard_columns(
            numbers,
            seed_documents,
            draws,
            [len(build_prompt(tokens, self.tokenizer, self.origin.capacity)) for tokens in seed_tokens],
            completions,
            [
                measure(completion.tokens, tokens, self.corpus_index, self.held_out_index)
                for completion, tokens in zip(completions, seed_tokens, strict=True)
            ],
        )
        drops = verdicts(columns, self.config)
        dropped = np.any(list(drops.values()), axis=0)
        with publishing_folder(self.path(shard)) as partial:
            with IndexedDatasetWriter(
                partial / _DOCUMENTS, self.seed_dataset.dtype, metadata=self.metadata
            ) as writer:
                for row in np.flatnonzero(~dropped).tolist():
                    tokens = completions[row].tokens
                    writer.add_document(np.concatenate([[self.tokenizer.bos], tokens, [self.tokenizer.eos]]))
            pq.write_table(
                shard_table(columns, drops, self.origin), partial / _PROVENANCE, compression="zstd"
            )
            publish_manifest(partial, _STAGE, self._inputs, {**self._settings, "shard": shard})

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata of the datasets written here."""
        return {
            "tokenizer": self.tokenizer.hash,
            "bos": int(self.tokenizer.bos),
            "eos": int(self.tokenizer.eos),
            "source": f"synthesis from checkpoint {self.origin.checkpoint}",
        }

    def table(self, shard: int) -> pa.Table:
        """Provenance of a published shard (`SHARD_SCHEMA`)."""
        return pq.read_table(self.path(shard) / _PROVENANCE)

    def documents(self, shard: int) -> IndexedDataset:
        """Documents of a published shard that no filter of `filters.verdicts` drops, in request order."""
        return IndexedDataset(self.path(shard) / _DOCUMENTS)


def _hash_index(index: NgramIndex) -> str:
    return f"{hashlib.sha256(np.ascontiguousarray(index.hashes).data).hexdigest()}-{index.width}"
