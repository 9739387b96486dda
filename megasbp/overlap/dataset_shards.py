"""Several indexed datasets as one: documents are numbered on from shard to shard."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.errors import InputError
from megasbp.storage import hash_object


class DatasetShards:
    """The documents of dataset shards, one after another.

    Args:
        prefixes: the shards' paths without suffix, in the order that numbers the documents.

    Attributes:
        bounds: int64 [shards + 1], each shard's first document, and the number of documents last.
        metadata: the first shard's.

    Raises:
        InputError: no shard, a shard that cannot be opened, or shards that differ in their bos or eos.
    """

    def __init__(self, prefixes: Sequence[Path]) -> None:
        if not prefixes:
            raise InputError("no dataset shards; name at least one")
        self._shards = [IndexedDataset(Path(prefix)) for prefix in prefixes]
        self.bounds = np.zeros(len(self._shards) + 1, np.int64)
        np.cumsum([len(shard) for shard in self._shards], out=self.bounds[1:])
        self.metadata: dict[str, Any] = self._shards[0].metadata
        for shard in self._shards:
            for name in ("bos", "eos"):
                expected, found = self.metadata.get(name), shard.metadata.get(name)
                if expected != found:
                    raise InputError(
                        f"{shard.prefix}.json: {name} is {found}, {expected} in the first shard; "
                        "write all shards with one tokenizer"
                    )

    def __len__(self) -> int:
        """Number of documents."""
        return int(self.bounds[-1])

    @property
    def fingerprint(self) -> str:
        """Hash of the shards' contents, in their order, wherever they lie."""
        return hash_object([shard.fingerprint for shard in self._shards])

    def document(self, index: int, /) -> np.ndarray:
        """Tokens of one document, a read-only view.

        Raises:
            IndexError: outside 0..len(self) - 1.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        # Empty shards share their bound with the next one; the last of equals is the one with documents.
        shard = int(np.searchsorted(self.bounds, index, side="right")) - 1
        return self._shards[shard].document(index - int(self.bounds[shard]))
