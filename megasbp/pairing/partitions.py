"""A corpus divided by spherical k-means into partitions of rows that lie close, on disk in float16.

Rows come in blocks of consecutive numbers, one task each. A block's folder holds its rows once, in the order
of their home partition (the nearest one), so that a partition reads its own rows as one run of each block;
which other partitions a row is stored in or asks is a list of positions.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from megasbp.addressing import derive_key
from megasbp.pairing.embedding import unit_rows
from megasbp.pairing.join import best_among
from megasbp.pairing.picked_rows import PickedRows
from megasbp.pairing.vectors import Vectors, load_array

_SAMPLE_PER_PARTITION = 64
_ITERATIONS = 6
_NO_POSITIONS = np.empty(0, np.int32)


def fit_centroids(
    vectors: np.ndarray | Vectors,
    partitions: int,
    *,
    seed: int = 0,
    rows_each: int = _SAMPLE_PER_PARTITION,
    iterations: int = _ITERATIONS,
) -> np.ndarray:
    """float32 [partitions, d] unit rows: spherical k-means on a sample of `rows_each` rows per partition.

    Dhillon and Modha, "Concept decompositions for large sparse text data using clustering", Machine Learning
    42, 2001. The same bytes at any number of threads. A partition that loses all its rows starts again from
    one of the rows that are served worst.

    Args:
        vectors: float32 [n, d], unit rows, n >= partitions.
    """
    generator = np.random.Generator(np.random.Philox(key=derive_key(seed, "k-means")))
    count = min(len(vectors), partitions * rows_each)
    rows = generator.choice(len(vectors), count, replace=False, shuffle=False)
    sample = vectors[np.sort(rows)]
    centroids = sample[np.sort(generator.choice(count, partitions, replace=False))]
    for _ in range(iterations):
        similarity, nearest = best_among(sample, centroids, 1)
        # The sums of a sparse product run in the order of the rows, on one thread.
        members = sparse.csr_array(
            (np.ones(count, np.float32), (nearest[:, 0], np.arange(count))), shape=(partitions, count)
        )
        sums = members @ sample
        lost = np.setdiff1d(np.arange(partitions), nearest[:, 0])
        # Opposite rows may add up to nothing as well.
        lost = np.union1d(lost, np.flatnonzero(np.linalg.norm(sums, axis=1) < 1e-6))
        sums[lost] = sample[np.argsort(similarity[:, 0], kind="stable")[: len(lost)]]
        centroids = unit_rows(sums)
    return centroids


def write_block(
    vectors: Vectors,
    start: int,
    stop: int,
    centroids: np.ndarray,
    folder: Path,
    *,
    store: int,
    rounds: Sequence[range],
) -> None:
    """Writes rows [start, stop) into `folder`.

    Files: vectors.npy float16 [r, d] and row.npy int64 [r], ordered by home partition, then row; NAME.npy
    int32 positions in that order, by partition, then row, and NAME_bounds.npy int64 [partitions + 1], for
    NAME in home (each row once), stored (each row in its `store` nearest partitions) and asking_R (each row
    in its nearest partitions of the ranks `rounds[R]`, where 0 is home).

    Args:
        vectors: float32 [n, d], unit rows.
    """
    block = vectors[start:stop]
    lists = {"home": range(1), "stored": range(store)}
    lists |= {f"asking_{number}": ranks for number, ranks in enumerate(rounds)}
    _, nearest = best_among(block, centroids, max(ranks.stop for ranks in lists.values()))
    order = np.argsort(nearest[:, 0].astype(_smallest(len(centroids))), kind="stable")
    save(folder, "vectors", torch.from_numpy(block[order]).half().numpy())
    save(folder, "row", start + order)
    position = np.empty(len(order), np.int32)
    position[order] = np.arange(len(order), dtype=np.int32)
    for name, ranks in lists.items():
        partition = nearest[:, ranks.start : ranks.stop]
        # By rows already; a stable sort of small numbers is a fast one.
        by_partition = np.argsort(partition.ravel().astype(_smallest(len(centroids))), kind="stable")
        save(folder, name, np.repeat(position, partition.shape[1])[by_partition])
        counts = np.bincount(partition.ravel(), minlength=len(centroids))
        save(folder, f"{name}_bounds", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _smallest(count: int) -> np.dtype[Any]:
    """The smallest type of numbers below `count`."""
    return np.min_scalar_type(count)


class Block:
    """A block's folder; see `write_block` for the arrays, each of which is mapped once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, np.ndarray] = {}

    @property
    def vectors(self) -> np.ndarray:
        """float16 [r, d]."""
        return self._array("vectors")

    @property
    def row(self) -> np.ndarray:
        """int64 [r], row numbers."""
        return self._array("row")

    def positions(self, name: str, partition: int) -> np.ndarray:
        """int32: where the rows of the list `name` of a partition lie in this block."""
        first, last = self._array(f"{name}_bounds")[partition : partition + 2]
        return self._array(name)[first:last]

    def sizes(self, name: str) -> np.ndarray:
        """int64 [partitions]: rows in each partition's list."""
        return np.diff(self._array(f"{name}_bounds"))

    def _array(self, name: str) -> np.ndarray:
        array = self._maps.get(name)
        if array is None:
            array = self._maps[name] = load(self._folder, name)
        return array


@dataclass(frozen=True)
class Rows:
    """Some rows of a partition's list.

    Attributes:
        row: int64 [m], row numbers.
        vectors: float16 [m, d], where the blocks hold them.
        limit: float32 [m]; -inf where none was given.
    """

    row: np.ndarray
    vectors: PickedRows
    limit: np.ndarray


def read_rows(
    blocks: Sequence[Block],
    name: str,
    partition: int,
    *,
    limits: Sequence[np.ndarray] | None = None,
    at_once: int,
) -> Iterator[Rows]:
    """A partition's list, `at_once` rows after the other, block by block and in each by rising row number.

    Args:
        limits: of each block: float32 [r], in the block's order.
        at_once: rows that are yielded together; the last ones may be fewer, or none.
    """
    held: list[tuple[int, np.ndarray]] = []
    room = at_once
    for place, block in enumerate(blocks):
        positions = block.positions(name, partition)
        while len(positions):
            part, positions = positions[:room], positions[room:]
            held.append((place, part))
            room -= len(part)
            if not room:
                yield _gathered(blocks, held, limits)
                held, room = [], at_once
    yield _gathered(blocks, held, limits)


def read_all(
    blocks: Sequence[Block],
    name: str,
    partition: int,
    limits: Sequence[np.ndarray] | None = None,
) -> Rows:
    """A partition's whole list, block by block and in each by rising row number."""
    return next(read_rows(blocks, name, partition, limits=limits, at_once=sys.maxsize))


def _gathered(
    blocks: Sequence[Block],
    parts: Sequence[tuple[int, np.ndarray]],
    limits: Sequence[np.ndarray] | None,
) -> Rows:
    """The rows at some positions of some blocks."""
    # Without any, what tells their width.
    vectors = PickedRows([(blocks[place].vectors, part) for place, part in parts or [(0, _NO_POSITIONS)]])
    count = len(vectors)
    rows = Rows(np.empty(count, np.int64), vectors, np.full(count, -np.inf, np.float32))
    start = 0
    for place, part in parts:
        here = slice(start, start + len(part))
        # Positions are those of rows; "clip" only spares numpy a copy.
        np.take(blocks[place].row, part, out=rows.row[here], mode="clip")
        if limits is not None:
            np.take(limits[place], part, out=rows.limit[here], mode="clip")
        start = here.stop
    return rows


def load(folder: Path, name: str) -> np.ndarray:
    """A memory map of NAME.npy."""
    return load_array(folder / f"{name}.npy")


def save(folder: Path, name: str, array: np.ndarray) -> None:
    """Writes NAME.npy into a folder that is not published yet."""
    np.save(folder / f"{name}.npy", array, allow_pickle=False)
