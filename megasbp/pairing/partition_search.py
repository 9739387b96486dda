"""Neighbours by partitions: each step is a function (shard, folder, plan) that fills one folder.

    blocks   a block of rows, sorted by home partition               -> NAME_blocks/I
    own      each query against the rows of its home partition       -> own/G
    limits   the same neighbours, in the order of the query block    -> limits/I
    cross    each query against the other partitions that it asks    -> cross/G
    merge    the best of both, summed again in the original float32  -> neighbours/I

I numbers a block of consecutive rows, G a group of consecutive partitions; the folders of one step depend
only on those of earlier steps. What a query found at home is the limit that anything elsewhere must reach, so
that little is carried from there. When the corpus is its own set of queries, a pair that is looked at counts
for both of its rows: a neighbour is found if either of the two asks the other's partition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megasbp.pairing.join import Partition, best_among, best_per_owner
from megasbp.pairing.partitions import Block, load, read_all, read_rows, save, write_block
from megasbp.pairing.similarity import best_of_each, similarities

# float16 moves a similarity by about 3e-5, so some neighbours more than asked for are carried to the merge.
_SPARE = 2
_CANDIDATES_AT_ONCE = 1 << 20
_QUERIES_AT_ONCE = 2048

# owner int64, row int64, similarity, each [c]
Candidates = tuple[np.ndarray, np.ndarray, np.ndarray]
_NOTHING: Candidates = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True)
class Plan:
    """What a search does and where; small, and sent to every task.

    Attributes:
        queries, corpus: NAME.npy, float32 [n, d] and [m, d] of unit rows.
        work: folder of the steps' folders and of centroids.npy.
        neighbours: found per query.
        same: queries and corpus are the same rows, and row i is no neighbour of itself.
        partitions, store, probe: a row is stored in its `store` nearest partitions, a query asks its `probe`
            nearest.
        block_rows, group_partitions: size of a task.
        device: torch device of the matrix products.
    """

    queries: Path
    corpus: Path
    work: Path
    neighbours: int
    same: bool
    partitions: int
    store: int
    probe: int
    block_rows: int
    group_partitions: int
    device: str = "cpu"

    def open(self, side: str) -> np.ndarray:
        """A memory map of the vectors of "queries" or "corpus"."""
        return np.load(self.corpus if side == "corpus" else self.queries, mmap_mode="r", allow_pickle=False)

    def rows(self, side: str, block: int) -> range:
        start = block * self.block_rows
        return range(start, min(start + self.block_rows, len(self.open(side))))

    def blocks(self, side: str) -> list[Path]:
        """Folders of the blocks of "queries" or "corpus"; the same ones where both are the same rows."""
        name = "corpus" if self.same else side
        count = -(-len(self.open(name)) // self.block_rows)
        return [self.work / f"{name}_blocks" / f"{block:05d}" for block in range(count)]

    def group(self, group: int) -> range:
        start = group * self.group_partitions
        return range(start, min(start + self.group_partitions, self.partitions))

    def groups(self, step: str) -> list[Path]:
        """Folders of the step "own" or "cross"."""
        count = -(-self.partitions // self.group_partitions)
        return [self.work / step / f"{group:05d}" for group in range(count)]

    def query_folders(self, step: str) -> list[Path]:
        """Folders of the step "limits" or "neighbours"."""
        return [self.work / step / path.name for path in self.blocks("queries")]


def block_corpus(shard: int, folder: Path, plan: Plan) -> None:
    """Fills corpus_blocks/I; see `write_block` for the files."""
    _write_block("corpus", shard, folder, plan)


def block_queries(shard: int, folder: Path, plan: Plan) -> None:
    """Fills queries_blocks/I; only where the queries are other rows than the corpus."""
    _write_block("queries", shard, folder, plan)


def search_own(shard: int, folder: Path, plan: Plan) -> None:
    """Joins the home queries of each partition of a group with the rows stored in it.

    Writes similarity.npy float32 and row.npy int64 [q, k + 2], by partition, then query row; and bounds.npy
    int64 [partitions of the group + 1].
    """
    queries, corpus = _open(plan.blocks("queries")), _open(plan.blocks("corpus"))
    similarities_found, rows_found = [], []
    for partition in plan.group(shard):
        asking, stored = read_all(queries, "home", partition), read_all(corpus, "stored", partition)
        own_row = np.searchsorted(stored.row, asking.row) if plan.same else None
        similarity, place = best_among(
            asking.vectors.float().numpy(),
            stored.vectors.float().numpy(),
            plan.neighbours + _SPARE,
            own_row=own_row,
            device=plan.device,
        )
        similarities_found.append(similarity)
        # Place -1, no row, takes the -1 at the end.
        rows_found.append(np.append(stored.row, -1)[place])
    save(folder, "similarity", np.concatenate(similarities_found))
    save(folder, "row", np.concatenate(rows_found))
    save(folder, "bounds", np.cumsum([0] + [len(row) for row in rows_found]))


def gather_own(shard: int, folder: Path, plan: Plan) -> None:
    """Writes the home neighbours of one query block in the block's order: similarity.npy and row.npy."""
    sizes = np.stack([block.sizes("home") for block in _open(plan.blocks("queries"))])
    before = sizes[:shard].sum(axis=0)
    similarities_found, rows_found = [], []
    for group, path in enumerate(plan.groups("own")):
        bounds, similarity, row = (load(path, name) for name in ("bounds", "similarity", "row"))
        for place, partition in enumerate(plan.group(group)):
            first = bounds[place] + before[partition]
            part = slice(first, first + sizes[shard, partition])
            similarities_found.append(similarity[part])
            rows_found.append(row[part])
    save(folder, "similarity", np.concatenate(similarities_found))
    save(folder, "row", np.concatenate(rows_found))


def search_cross(shard: int, folder: Path, plan: Plan) -> None:
    """Joins the rows stored in each partition of a group with the queries from elsewhere that ask it.

    Writes owner.npy int64, row.npy int64 and similarity.npy float32 [c], by owner: rows that reach the limit
    of their owner, and no better ones were left out.
    """
    queries, corpus = _open(plan.blocks("queries")), _open(plan.blocks("corpus"))
    limits = [load(path, "similarity")[:, -1] for path in plan.query_folders("limits")]
    kept = [_NOTHING]
    for partition in plan.group(shard):
        stored = read_all(corpus, "stored", partition, limits if plan.same else None)
        joined = Partition(stored.vectors, stored.limit if plan.same else None, plan.device)
        for asking in read_rows(queries, "probing", partition, limits=limits, at_once=_QUERIES_AT_ONCE):
            query, place, similarity = joined.pairs(asking.vectors, asking.limit)
            owner, row = asking.row[query], stored.row[place]
            forth = similarity >= asking.limit[query]
            if plan.same:
                # A row stored in several partitions meets itself.
                other = owner != row
                back = other & (similarity >= stored.limit[place])
                kept.append((row[back], owner[back], similarity[back]))
                forth &= other
            kept.append((owner[forth], row[forth], similarity[forth]))
            if sum(len(part[0]) for part in kept) > _CANDIDATES_AT_ONCE:
                kept = [best_per_owner(*_joined(kept), plan.neighbours + _SPARE)]
    owner, row, similarity = _joined(kept)
    order = np.argsort(owner, kind="stable")
    owner, row, similarity = owner[order], row[order], similarity[order]
    save(folder, "owner", owner)
    save(folder, "row", row)
    save(folder, "similarity", similarity.astype(np.float32))


def merge(shard: int, folder: Path, plan: Plan) -> None:
    """Writes the k best neighbours of one query block: similarity.npy float32 and row.npy int64 [r, k]."""
    rows, k = plan.rows("queries", shard), plan.neighbours
    own = plan.query_folders("limits")[shard]
    home_row, home_similarity = load(own, "row"), load(own, "similarity")
    owner = np.repeat(load(plan.blocks("queries")[shard], "row"), home_row.shape[1])
    real = home_row.ravel() >= 0
    found = [(owner[real], home_row.ravel()[real], home_similarity.ravel()[real])]
    for path in plan.groups("cross"):
        owner = load(path, "owner")
        part = slice(*np.searchsorted(owner, [rows.start, rows.stop]))
        found.append((owner[part], load(path, "row")[part], load(path, "similarity")[part]))
    similarity, row = best_of_each(*_joined(found), rows, k + _SPARE)
    owner, place = np.nonzero(row >= 0)
    exact = np.full(row.shape, -np.inf)
    exact[owner, place] = similarities(
        plan.open("queries"), plan.open("corpus"), owner + rows.start, row[owner, place]
    )
    order = np.lexsort((row, -exact), axis=-1)[:, :k]
    similarity = np.take_along_axis(exact, order, axis=1).astype(np.float32)
    neighbours = np.take_along_axis(row, order, axis=1)
    save(folder, "similarity", similarity)
    save(folder, "row", neighbours)


def _write_block(side: str, shard: int, folder: Path, plan: Plan) -> None:
    rows = plan.rows(side, shard)
    write_block(
        plan.open(side),
        rows.start,
        rows.stop,
        load(plan.work, "centroids"),
        folder,
        store=plan.store,
        probe=plan.probe,
        device=plan.device,
    )


def _open(folders: Sequence[Path]) -> list[Block]:
    return [Block(folder) for folder in folders]


def _joined(found: Sequence[Candidates]) -> Candidates:
    owner, row, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return owner, row, similarity
