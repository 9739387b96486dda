"""Published shards of generated documents, each a pure function of (run, shard number).

A shard folder holds the documents that pass every filter that looks at one document alone, the provenance of
all its requests, and a manifest. Whether a document repeats an earlier one is decided when shards are read in
order.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from megasbp.addressing import derive_key
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.errors import InputError
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.shards.publication import shard_folder
from megasbp.storage import Manifest, publish_manifest, publishing_folder, read_manifest
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.exchange import Completion, Request
from megasbp.synthesis.filters import measure, verdicts
from megasbp.synthesis.provenance import (
    Origin,
    fingerprint_of,
    shard_columns,
    shard_table,
    with_all_columns,
)
from megasbp.synthesis.requests import Marks, Prompts, TokenMarks, shard_numbers, shard_requests

# The function that writes a shard in a worker; what this process publishes itself bears the same name.
STAGE = "megasbp.synthesis.workers:write_shard"
_DOCUMENTS, _PROVENANCE = "documents", "provenance.parquet"
# Settings that look at more than one shard.
_NOT_OF_A_SHARD = {"drop_duplicates", "minimum_acceptance"}


@dataclass(frozen=True)
class ShardStore:
    """The shards of one run below `folder`.

    Attributes:
        folder: holds one folder per shard.
        seed: of the run.
        config: of which the sampler, the compute shape and the filters shape a shard.
        context: positions of prompt and document together.
        checkpoint_hash: of the synthesizer.
        tokenizer, seed_dataset: of the prompts; without a seed dataset they are bos alone.
        dtype: of the stored tokens.
        corpus_index, held_out_index: what the documents are compared with.
    """

    folder: Path
    seed: int
    config: SynthesisConfig
    context: int
    checkpoint_hash: str
    tokenizer: TokenMarks
    seed_dataset: IndexedDataset | None
    dtype: np.dtype
    corpus_index: NgramIndex
    held_out_index: NgramIndex

    @property
    def prompts(self) -> Prompts:
        """What the writer is given."""
        of_seeds = self.config.draws_together, self.config.seed_documents
        return Prompts(self.seed_dataset, self.tokenizer, self.context, *of_seeds)

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Content hashes of what a shard is made from."""
        inputs = {
            "corpus_index": _hash_index(self.corpus_index),
            "held_out_index": _hash_index(self.held_out_index),
        }
        if self.seed_dataset is not None:
            inputs["seed_dataset"] = self.seed_dataset.fingerprint
        return inputs

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What else decides a shard's bytes; with them `shard_work.write_shard` is called.

        What the machine decides (threads, versions) is recorded in the rows, not required to be the same: a
        run may go on elsewhere.
        """
        content = self.config.content()
        settings: dict[str, Any] = {name: content[name] for name in content if name not in _NOT_OF_A_SHARD}
        marks = Marks(self.tokenizer.bos, self.tokenizer.eos, self.tokenizer.sep, self.tokenizer.hash)
        settings |= {
            "checkpoint_hash": self.checkpoint_hash,
            "tokenizer": asdict(marks),
            "context": self.context,
            "seed": self.seed,
        }
        if self.seed_dataset is None:
            settings["dtype"] = self.dtype.name
        return json.loads(json.dumps(settings))

    @property
    def key(self) -> str:
        """Hash of everything the shards depend on."""
        return Manifest(STAGE, self.inputs, self.settings).key

    @property
    def noise_key(self) -> int:
        """Key of the draws, in [0, 2**64)."""
        return derive_key(self.seed, "synthesis", "draws")

    def origin(self, environment: Mapping[str, Any]) -> Origin:
        """What a row of provenance says about the generator.

        Args:
            environment: `provenance.compute_environment`, or what else the writer says of itself.
        """
        shape = {
            "slots": self.config.slots,
            "prefill_slots": self.config.prefill_slots,
            "prefill_chunk": self.config.prefill_chunk,
        }
        return Origin(
            checkpoint=self.checkpoint_hash,
            tokenizer=self.tokenizer.hash,
            seed_dataset=fingerprint_of(self.seed_dataset),
            noise_key=self.noise_key,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            maximum_tokens=self.config.maximum_tokens,
            capacity=self.context,
            **(shape | dict(environment)),
        )

    def requests(self, shards: Iterable[int]) -> Iterator[Request]:
        """The requests of the given shards, in order."""
        return shard_requests(shards, self.config.shard_documents, self.seed, self.prompts)

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
        wanted = Manifest(STAGE, self.inputs, {**self.settings, "shard": shard})
        if manifest.key != wanted.key:
            raise InputError(
                f"{self.path(shard)}: written with {manifest.difference(wanted)}; "
                f"use another folder, or remove {self.folder} to write the corpus anew"
            )
        return True

    def publish(self, shard: int, completions: Sequence[Completion], origin: Origin) -> None:
        """Filters and publishes the documents of a shard."""
        with publishing_folder(self.path(shard)) as partial:
            self.write(shard, completions, origin, partial)
            publish_manifest(partial, STAGE, self.inputs, {**self.settings, "shard": shard})

    def write(self, shard: int, completions: Sequence[Completion], origin: Origin, folder: Path) -> None:
        """Filters the documents of a shard and writes its files into an existing folder.

        Args:
            completions: in the order of the shard's requests.
        """
        numbers = shard_numbers(shard, self.config.shard_documents)
        prompts = self.prompts
        seed_documents, draws = prompts.locate(numbers, self.seed)
        seed_tokens = [prompts.seed_tokens(document) for document in seed_documents.tolist()]
        columns = shard_columns(
            numbers,
            seed_documents,
            draws,
            [
                len(prompts.request(document, draw).prompt)
                for document, draw in zip(seed_documents.tolist(), draws.tolist(), strict=True)
            ],
            completions,
            [
                measure(completion.tokens, tokens, self.corpus_index, self.held_out_index)
                for completion, tokens in zip(completions, seed_tokens, strict=True)
            ],
        )
        drops = verdicts(columns, self.config)
        dropped = np.any(list(drops.values()), axis=0)
        with IndexedDatasetWriter(folder / _DOCUMENTS, self.dtype, metadata=self.metadata) as writer:
            for row in np.flatnonzero(~dropped).tolist():
                tokens = completions[row].tokens
                writer.add_document(np.concatenate([[self.tokenizer.bos], tokens, [self.tokenizer.eos]]))
        pq.write_table(shard_table(columns, drops, origin), folder / _PROVENANCE, compression="zstd")

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata of the datasets written here."""
        return {
            "tokenizer": self.tokenizer.hash,
            "bos": int(self.tokenizer.bos),
            "eos": int(self.tokenizer.eos),
            "source": f"synthesis from checkpoint {self.checkpoint_hash}",
        }

    def table(self, shard: int) -> pa.Table:
        """Provenance of a published shard (`SHARD_SCHEMA`)."""
        return with_all_columns(pq.read_table(self.path(shard) / _PROVENANCE))

    def documents(self, shard: int) -> IndexedDataset:
        """Documents of a published shard that no filter of `filters.verdicts` drops, in request order."""
        return IndexedDataset(self.path(shard) / _DOCUMENTS)


def _hash_index(index: NgramIndex) -> str:
    return f"{hashlib.sha256(np.ascontiguousarray(index.hashes).data).hexdigest()}-{index.width}"
