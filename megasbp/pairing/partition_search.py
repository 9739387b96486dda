"""Neighbours by partitions: each step is a function of one shard, run by `megasbp.shards`.

    choose    the setting, its centroids, and neighbours of a sample  -> choose/0
    blocks    a block of rows, sorted by home partition               -> NAME_blocks/I
    own       each query against the rows of its home partition       -> own/G
    best_0    the same neighbours, in the order of the query block    -> best_0/I
    cross_0   each query against the next nearest partitions          -> cross_0/G
    best_1    the best of all that was found so far                   -> best_1/I
    cross_1   each query against the other partitions that it asks    -> cross_1/G
    merge     the best of all, summed again in the original float32   -> neighbours/I

I numbers a block of consecutive rows, G a group of consecutive partitions; the folders of one step depend
only on those of earlier steps. What a query has found so far is the limit that anything elsewhere must reach,
so that little is carried from there: most of what is near lies in the nearest partitions, and behind them
the limit lets hardly more pass than will be kept. When the corpus is its own set of queries, a pair that is
looked at counts for both of its rows: a neighbour is found if either of the two asks the other's partition.
"""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from megasbp import _C
from megasbp.pairing.config import SearchConfig
from megasbp.pairing.join import best_among, best_per_owner, joined
from megasbp.pairing.partition_choice import choose_setting
from megasbp.pairing.partitions import Block, load, read_all, read_rows, save, write_block
from megasbp.pairing.products import Candidates, columns
from megasbp.pairing.recall import sample_truth
from megasbp.pairing.similarity import best_of_each, similarities
from megasbp.pairing.vectors import Vectors
from megasbp.shards.publication import shard_folder

# float16 moves a similarity by about 3e-5, so some neighbours more than asked for are carried to the merge.
_SPARE = 2
# Float16 keeps 11 bits: a unit row moves by at most 2**-11, a similarity by twice that, and two are compared.
_HALF_ERROR = np.float32(2.0**-9)
_CANDIDATES_AT_ONCE = 1 << 20
_QUERIES_AT_ONCE = 2048
# Ranks of the partitions that are asked together: home is rank 0.
_ROUNDS = (range(1, 3), range(3, sys.maxsize))
_Joined = TypeVar("_Joined")
_NOTHING: Candidates = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True)
class Plan:
    """What a search does and where; small, and sent to every task.

    Attributes:
        queries, corpus: files of float32 [n, d] and [m, d] of unit rows.
        work: folder of the steps' folders.
        query_rows, corpus_rows: n and m.
        neighbours: found per query.
        same: queries and corpus are the same rows, and row i is no neighbour of itself.
        partitions, store, probe: a row is stored in its `store` nearest partitions, a query asks its `probe`
            nearest.
        block_rows, group_partitions: size of a task.
    """

    queries: Sequence[Path]
    corpus: Sequence[Path]
    work: Path
    query_rows: int
    corpus_rows: int
    neighbours: int
    same: bool
    partitions: int
    store: int
    probe: int
    block_rows: int
    group_partitions: int

    @property
    def paths(self) -> dict[str, Path | Sequence[Path]]:
        """Where things lie, which changes no byte."""
        return {"queries": self.queries, "corpus": self.corpus, "work": self.work}

    @property
    def settings(self) -> dict[str, Any]:
        """The rest."""
        return {name: value for name, value in vars(self).items() if name not in self.paths}

    @property
    def rounds(self) -> list[range]:
        """Ranks of the partitions that are asked in each round."""
        rounds = [range(ranks.start, min(ranks.stop, self.probe)) for ranks in _ROUNDS]
        return [ranks for ranks in rounds if ranks]

    def rows(self, side: str, block: int) -> range:
        """Rows of a block of "queries" or "corpus"."""
        start = block * self.block_rows
        count = self.corpus_rows if side == "corpus" else self.query_rows
        return range(start, min(start + self.block_rows, count))

    def blocks(self, side: str) -> list[Path]:
        """Folders of the blocks of "queries" or "corpus"; the same ones where both are the same rows."""
        name = "corpus" if self.same else side
        count = self.corpus_rows if name == "corpus" else self.query_rows
        return self._folders(f"{name}_blocks", count, self.block_rows)

    def group(self, group: int) -> range:
        """Partitions of a group."""
        start = group * self.group_partitions
        return range(start, min(start + self.group_partitions, self.partitions))

    def groups(self, step: str) -> list[Path]:
        """Folders of the step "own" or "cross_R"."""
        return self._folders(step, self.partitions, self.group_partitions)

    def query_folders(self, step: str) -> list[Path]:
        """Folders of the step "best_R" or "neighbours"."""
        return self._folders(step, self.query_rows, self.block_rows)

    def _folders(self, step: str, size: int, part: int) -> list[Path]:
        return [shard_folder(self.work / step, shard) for shard in range(-(-size // part))]


def choose(
    shard: int,
    folder: Path,
    *,
    queries: Sequence[Path],
    corpus: Sequence[Path],
    neighbours: int,
    same: bool,
    search: dict[str, Any],
) -> dict[str, Any]:
    """Chooses the setting on every other query of a sample, and keeps what the rest is judged by.

    Writes centroids.npy float32 [partitions, d]; query.npy, similarity.npy and row.npy of a `Truth`. The
    facts are those of the `Setting`.
    """
    config, query_vectors, corpus_vectors = SearchConfig(**search), Vectors(queries), Vectors(corpus)
    truth = sample_truth(
        query_vectors, corpus_vectors, neighbours, 2 * config.recall_sample, exclude_same_row=same
    )
    setting, centroids = choose_setting(
        query_vectors, corpus_vectors, truth.every_other(0), config, same=same
    )
    save(folder, "centroids", centroids)
    for name, array in vars(truth).items():
        save(folder, name, array)
    return asdict(setting)


def block_corpus(shard: int, folder: Path, **settings: Any) -> None:
    """Fills corpus_blocks/I; see `write_block` for the files."""
    _write_block("corpus", shard, folder, Plan(**settings))


def block_queries(shard: int, folder: Path, **settings: Any) -> None:
    """Fills queries_blocks/I; only where the queries are other rows than the corpus."""
    _write_block("queries", shard, folder, Plan(**settings))


def search_own(shard: int, folder: Path, **settings: Any) -> None:
    """Joins the home queries of each partition of a group with the rows stored in it.

    Writes similarity.npy float32 and row.npy int64 [q, k + 2], by partition, then query row; and bounds.npy
    int64 [partitions of the group + 1].
    """
    plan = Plan(**settings)
    queries, corpus = (_open_blocks(plan, side) for side in ("queries", "corpus"))

    def join(partition: int) -> tuple[np.ndarray, np.ndarray]:
        asking, stored = read_all(queries, "home", partition), read_all(corpus, "stored", partition)
        own_row = np.searchsorted(stored.row, asking.row) if plan.same else None
        similarity, place = best_among(
            asking.vectors, stored.vectors, plan.neighbours + _SPARE, own_row=own_row, threads=1
        )
        # Place -1, no row, takes the -1 at the end.
        return similarity, np.append(stored.row, -1)[place]

    similarities_found, rows_found = zip(*_for_each(join, plan.group(shard)), strict=True)
    save(folder, "similarity", np.concatenate(similarities_found))
    save(folder, "row", np.concatenate(rows_found))
    save(folder, "bounds", np.cumsum([0] + [len(row) for row in rows_found]))


def gather_own(shard: int, folder: Path, **settings: Any) -> None:
    """Writes the home neighbours of one query block in the block's order: similarity.npy and row.npy.

    Also limit.npy float32 [r]: what another row must reach to be one of them.
    """
    plan = Plan(**settings)
    blocks = _open_blocks(plan, "queries")
    before = sum((block.sizes("home") for block in blocks[:shard]), np.zeros(plan.partitions, np.int64))
    sizes = blocks[shard].sizes("home")
    similarities_found, rows_found = [], []
    for group, path in enumerate(plan.groups("own")):
        bounds, similarity, row = (load(path, name) for name in ("bounds", "similarity", "row"))
        for place, partition in enumerate(plan.group(group)):
            first = bounds[place] + before[partition]
            part = slice(first, first + sizes[partition])
            similarities_found.append(similarity[part])
            rows_found.append(row[part])
    _save_best(folder, np.concatenate(similarities_found), np.concatenate(rows_found), plan.neighbours)


def search_cross(shard: int, folder: Path, *, round: int, **settings: Any) -> None:
    """Joins the rows stored in each partition of a group with the queries that ask it in one round.

    Writes owner.npy int32, row.npy int64 and similarity.npy float32 [c], by query block: rows that reach the
    limit of their owner, which is numbered inside its block, and no better ones were left out; and bounds.npy
    int64 [blocks + 1].
    """
    plan = Plan(**settings)
    queries, corpus = (_open_blocks(plan, side) for side in ("queries", "corpus"))
    limits = [load(path, "limit") for path in plan.query_folders(f"best_{round}")]

    def join(partition: int) -> Candidates:
        stored = read_all(corpus, "stored", partition, limits if plan.same else None)
        rows = columns(stored.vectors, threads=1)
        kept, count = [_NOTHING], 0
        for asking in read_rows(
            queries, f"asking_{round}", partition, limits=limits, at_once=_QUERIES_AT_ONCE
        ):
            pairs = rows.pairs(asking.vectors, asking.limit, stored.limit if plan.same else None)
            # A row stored in several partitions meets itself.
            sides = asking.row, asking.limit, stored.row, stored.limit
            kept.append(_C.candidates_of(*pairs, *sides, both=plan.same))
            count += len(kept[-1][0])
            if count > _CANDIDATES_AT_ONCE:
                kept = [best_per_owner(*joined(kept), plan.neighbours + _SPARE)]
                count = len(kept[0][0])
        return joined(kept)

    owner, row, similarity = joined(_for_each(join, plan.group(shard)))
    block = owner // plan.block_rows
    # A stable sort of small numbers is a fast one.
    order = np.argsort(block.astype(np.min_scalar_type(len(queries))), kind="stable")
    save(folder, "owner", (owner - block * plan.block_rows)[order].astype(np.int32))
    save(folder, "row", row[order])
    save(folder, "similarity", similarity[order].astype(np.float32, copy=False))
    save(folder, "bounds", np.concatenate([[0], np.cumsum(np.bincount(block, minlength=len(queries)))]))


def gather_cross(shard: int, folder: Path, *, round: int, **settings: Any) -> None:
    """Writes what one query block has found up to a round; files as those of `gather_own`."""
    plan = Plan(**settings)
    similarity, row = _best_after(plan, shard, round + 1)
    order = load(plan.blocks("queries")[shard], "row") - plan.rows("queries", shard).start
    _save_best(folder, similarity[order].astype(np.float32), row[order], plan.neighbours)


def merge(shard: int, folder: Path, **settings: Any) -> None:
    """Writes the k best neighbours of one query block: similarity.npy float32 and row.npy int64 [r, k]."""
    plan = Plan(**settings)
    rows, k = plan.rows("queries", shard), plan.neighbours
    _, row = _best_after(plan, shard, len(plan.rounds))
    owner, place = np.nonzero(row >= 0)
    exact = np.full(row.shape, -np.inf)
    # Together, so that each file of the corpus is opened once, and not for each file of queries.
    queries = Vectors(plan.queries)[rows.start : rows.stop]
    exact[owner, place] = similarities(queries, Vectors(plan.corpus), owner, row[owner, place])
    order = np.lexsort((row, -exact), axis=-1)[:, :k]
    similarity = np.take_along_axis(exact, order, axis=1).astype(np.float32)
    neighbours = np.take_along_axis(row, order, axis=1)
    save(folder, "similarity", similarity)
    save(folder, "row", neighbours)


def _best_after(plan: Plan, shard: int, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """The best k + 2 that one query block has found up to a number of rounds, by row number.

    Returns:
        similarity float64 and row int64 [r, k + 2]; -inf and -1 where there are fewer.
    """
    rows = plan.rows("queries", shard)
    kept = plan.query_folders(f"best_{max(rounds - 1, 0)}")[shard]
    row, similarity = load(kept, "row"), load(kept, "similarity")
    real = row >= 0
    owner = load(plan.blocks("queries")[shard], "row") - rows.start
    found = [(owner[np.nonzero(real)[0]], row[real], similarity[real])]
    for path in plan.groups(f"cross_{rounds - 1}") if rounds else ():
        part = slice(*load(path, "bounds")[shard : shard + 2])
        found.append((load(path, "owner")[part], load(path, "row")[part], load(path, "similarity")[part]))
    return best_of_each(*joined(found), range(len(rows)), plan.neighbours + _SPARE)


def _open_blocks(plan: Plan, side: str) -> list[Block]:
    return [Block(folder) for folder in plan.blocks(side)]


def _save_best(folder: Path, similarity: np.ndarray, row: np.ndarray, k: int) -> None:
    save(folder, "similarity", similarity)
    save(folder, "row", row)
    save(folder, "limit", np.maximum(similarity[:, -1], similarity[:, k - 1] - _HALF_ERROR))


def _for_each(join: Callable[[int], _Joined], partitions: range) -> list[_Joined]:
    """What comes of each partition, several at a time: what is not C++ leaves a processor to the others."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(join, partitions))


def _write_block(side: str, shard: int, folder: Path, plan: Plan) -> None:
    rows = plan.rows(side, shard)
    write_block(
        Vectors(plan.corpus if side == "corpus" else plan.queries),
        rows.start,
        rows.stop,
        load(shard_folder(plan.work / "choose", 0), "centroids"),
        folder,
        store=plan.store,
        rounds=plan.rounds,
    )
