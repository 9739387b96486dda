"""What tools/preprocess_corpus.py has made of a corpus: dataset shards, read one after another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.preprocess import DOCUMENTS
from megasbp.errors import InputError
from megasbp.shards.publication import shard_folder
from megasbp.storage import hash_object, read_json, read_manifest

SUMMARY = "corpus.json"


@dataclass(frozen=True)
class PreprocessedCorpus:
    """The shards of a finished folder; documents are numbered on from shard to shard.

    Attributes:
        folder: where they lie.
        datasets: path without suffix of each shard's dataset.
        tokenizer: that they were written with.
        summary: counts over all shards, as corpus.json holds them: documents, tokens, bytes, rejected,
            reasons, ...
        fingerprint: hash of the shards' contents, in their order, wherever they lie.
    """

    folder: Path
    datasets: tuple[Path, ...]
    tokenizer: Tokenizer
    summary: dict[str, Any]
    fingerprint: str

    @classmethod
    def open(cls, folder: Path) -> "PreprocessedCorpus":
        """Opens a folder; reads manifests and sizes, not the shards.

        Raises:
            InputError: it is missing or unfinished, a shard is damaged, or its tokenizer is not the one that
                a shard was written with.
        """
        folder = Path(folder)
        if not (folder / SUMMARY).is_file():
            raise InputError(
                f"{folder}: no {SUMMARY}, so tools/preprocess_corpus.py has not finished there; run it "
                "or name its output"
            )
        summary = read_json(folder / SUMMARY)
        manifests = []
        for shard in range(summary["shards"]):
            manifest = read_manifest(shard_folder(folder, shard))
            if manifest is None:
                raise InputError(
                    f"{shard_folder(folder, shard)}: does not hold what its manifest says; remove that "
                    "folder and run tools/preprocess_corpus.py again"
                )
            manifests.append(manifest)
        tokenizer = Tokenizer.load(folder / "tokenizer.json", **manifests[0].settings["roles"])
        for shard, manifest in enumerate(manifests):
            written_with = manifest.inputs["tokenizer"]
            if written_with != tokenizer.hash:
                raise InputError(
                    f"{shard_folder(folder, shard)}: written with tokenizer {written_with[:12]}, "
                    f"{folder}/tokenizer.json is {tokenizer.hash[:12]}; restore the file, or preprocess the "
                    "corpus again in a new folder"
                )
        return cls(
            folder,
            tuple(shard_folder(folder, shard) / DOCUMENTS for shard in range(len(manifests))),
            tokenizer,
            summary,
            hash_object([manifest.digest for manifest in manifests]),
        )

    def column(self, shard: int, name: str) -> pa.ChunkedArray:
        """ "id" (string) or "bytes" (int64, of text) of each document of a shard."""
        path = shard_folder(self.folder, shard) / f"{DOCUMENTS}.parquet"
        return pq.read_table(path, columns=[name])[name]
