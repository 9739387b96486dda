"""A corpus divided by spherical k-means into partitions of rows that lie close, on disk in float16.

Rows come in blocks of consecutive numbers, one task each. A block's folder holds its rows once, in the order
of their home partition (the nearest one), so that a partition reads its own rows as one run of each block;
which other partitions a row is stored in or asks is a list of positions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from megasbp.addressing import derive_key
from megasbp.pairing.embedding import unit_rows
from megasbp.pairing.join import best_among

_SAMPLE_PER_PARTITION = 64
_ITERATIONS = 6


def fit_centroids(
    vectors: np.ndarray, partitions: int, *, seed: int = 0, iterations: int = _ITERATIONS, device: str = "cpu"
) -> np.ndarray:
    """float32 [partitions, d] unit rows: spherical k-means on a sample of 64 rows per partition.

    Dhillon and Modha, "Concept decompositions for large sparse text data using clustering", Machine Learning
    42, 2001. The same bytes at any number of threads. A partition that loses all its rows starts again from
    one of the rows that are served worst.

    Args:
        vectors: float32 [n, d], unit rows, n >= partitions.
    """
    generator = np.random.Generator(np.random.Philox(key=derive_key(seed, "k-means")))
    count = min(len(vectors), partitions * _SAMPLE_PER_PARTITION)
    rows = generator.choice(len(vectors), count, replace=False, shuffle=False)
    sample = np.ascontiguousarray(vectors[np.sort(rows)], dtype=np.float32)
    centroids = sample[np.sort(generator.choice(count, partitions, replace=False))]
    for _ in range(iterations):
        similarity, nearest = best_among(sample, centroids, 1, device=device)
        order = np.argsort(nearest[:, 0], kind="stable")
        used, starts = np.unique(nearest[order, 0], return_index=True)
        sums = np.zeros(centroids.shape, dtype=np.float64)
        sums[used] = np.add.reduceat(sample[order].astype(np.float64), starts, axis=0)
        lost = np.setdiff1d(np.arange(partitions), used)
        # Opposite rows may add up to nothing as well.
        lost = np.union1d(lost, np.flatnonzero(np.linalg.norm(sums, axis=1) < 1e-6))
        sums[lost] = sample[np.argsort(similarity[:, 0], kind="stable")[: len(lost)]]
        centroids = unit_rows(sums)
    return centroids


def write_block(
    vectors: np.ndarray,
    start: int,
    stop: int,
    centroids: np.ndarray,
    folder: Path,
    *,
    store: int,
    probe: int,
    device: str = "cpu",
) -> None:
    """Writes rows [start, stop) into `folder`.

    Files: vectors.npy float16 [r, d] and row.npy int64 [r], ordered by home partition, then row;
    NAME.npy int32 positions in that order, by partition, and NAME_bounds.npy int64 [partitions + 1], for NAME
    in home (each row once), stored (each row in its `store` nearest partitions) and probing (each row in its
    `probe` nearest partitions but the first).

    Args:
        vectors: float32 [n, d], unit rows; may be a memory map.
    """
    block = np.ascontiguousarray(vectors[start:stop], dtype=np.float32)
    _, nearest = best_among(block, centroids, max(store, probe), device=device)
    order = np.argsort(nearest[:, 0], kind="stable")
    nearest = nearest[order]
    save(folder, "vectors", torch.from_numpy(block[order]).half().numpy())
    save(folder, "row", start + order)
    for name, ranks in (("home", slice(0, 1)), ("stored", slice(0, store)), ("probing", slice(1, probe))):
        partition = nearest[:, ranks]
        position = np.repeat(np.arange(len(order), dtype=np.int32), partition.shape[1])
        by_partition = np.argsort(partition.ravel(), kind="stable")
        counts = np.bincount(partition.ravel(), minlength=len(centroids))
        save(folder, name, position[by_partition])
        save(folder, f"{name}_bounds", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


class Block:
    """A block's folder, opened as memory maps; see `write_block` for the arrays."""

    def __init__(self, folder: Path) -> None:
        self.vectors = load(folder, "vectors")
        self.row = load(folder, "row")
        self._lists = {name: load(folder, name) for name in ("home", "stored", "probing")}
        self._bounds = {name: load(folder, f"{name}_bounds") for name in self._lists}

    def positions(self, name: str, partition: int) -> np.ndarray:
        """int32: where the rows of the list `name` of a partition lie in this block."""
        first, last = self._bounds[name][partition : partition + 2]
        return self._lists[name][first:last]

    def sizes(self, name: str) -> np.ndarray:
        """int64 [partitions]: rows in each partition's list."""
        return np.diff(self._bounds[name])


@dataclass(frozen=True)
class Rows:
    """Some rows of a partition's list.

    Attributes:
        row: int64 [m], row numbers.
        vectors: float16 [m, d].
        limit: float32 [m]; -inf where none was given.
    """

    row: np.ndarray
    vectors: torch.Tensor
    limit: np.ndarray


def read_rows(
    blocks: Sequence[Block],
    name: str,
    partition: int,
    *,
    limits: Sequence[np.ndarray] | None = None,
    at_once: int | None = None,
) -> Iterator[Rows]:
    """A partition's list, block by block; within each by rising row number.

    Args:
        limits: float32 [r] of each block, in its order.
        at_once: most rows that are yielded together; all of a block by default.
    """
    for place, block in enumerate(blocks):
        positions = block.positions(name, partition)
        positions = positions[np.argsort(block.row[positions], kind="stable")]
        step = at_once or max(1, len(positions))
        for start in range(0, len(positions), step):
            part = positions[start : start + step]
            limit = np.full(len(part), -np.inf, np.float32) if limits is None else limits[place][part]
            yield Rows(block.row[part], torch.from_numpy(block.vectors[part]), limit)


def read_all(
    blocks: Sequence[Block], name: str, partition: int, limits: Sequence[np.ndarray] | None = None
) -> Rows:
    """A partition's whole list, by rising row number."""
    parts = list(read_rows(blocks, name, partition, limits=limits))
    if not parts:
        width = blocks[0].vectors.shape[1]
        return Rows(
            np.empty(0, np.int64), torch.empty((0, width), dtype=torch.float16), np.empty(0, np.float32)
        )
    return Rows(
        np.concatenate([part.row for part in parts]),
        torch.cat([part.vectors for part in parts]),
        np.concatenate([part.limit for part in parts]),
    )


def load(folder: Path, name: str) -> np.ndarray:
    """A memory map of NAME.npy; an empty array is read, since nothing cannot be mapped."""
    path = folder / f"{name}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        return np.load(path, allow_pickle=False)


def save(folder: Path, name: str, array: np.ndarray) -> None:
    """Writes NAME.npy into a folder that is not published yet."""
    np.save(folder / f"{name}.npy", array, allow_pickle=False)
