from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from megasbp.data.indexed_dataset import IndexedDatasetWriter


@pytest.fixture
def write_shards(tmp_path) -> Callable[..., list[Path]]:
    """Writes documents as dataset shards, at the given bounds; returns their prefixes."""

    def write(
        documents: Sequence[np.ndarray],
        bounds: Sequence[int] = (),
        name: str = "data",
        dtype=np.int32,
        **metadata,
    ) -> list[Path]:
        prefixes = []
        for number, (start, stop) in enumerate(zip([0, *bounds], [*bounds, len(documents)], strict=True)):
            prefixes.append(tmp_path / f"{name}-{number}")
            with IndexedDatasetWriter(prefixes[-1], dtype, metadata=metadata) as writer:
                for document in documents[start:stop]:
                    writer.add_document(np.asarray(document, np.int64))
        return prefixes

    return write
