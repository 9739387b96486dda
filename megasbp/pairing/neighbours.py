"""One front for the neighbour search: exact, by partitions, or by faiss; with the recall of a sample."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from megasbp.pairing.config import SearchConfig
from megasbp.pairing.partition_choice import Setting, check_partitions, choose_setting
from megasbp.pairing.partition_search import (
    Plan,
    block_corpus,
    block_queries,
    choose,
    gather_cross,
    gather_own,
    merge,
    search_cross,
    search_own,
)
from megasbp.pairing.partitions import load
from megasbp.pairing.recall import Truth, found_similarities, sample_truth, tie_aware_recall
from megasbp.pairing.search import nearest_neighbours
from megasbp.pairing.similarity import check_unit_rows, similarities
from megasbp.pairing.vectors import Vectors
from megasbp.shards.config import INLINE, ShardsConfig
from megasbp.shards.engine import run_shards
from megasbp.shards.job import Work
from megasbp.shards.publication import shard_folder
from megasbp.storage import Manifest, hash_object

Announce = Callable[[str], None]

# Up to here exact search takes less than about a minute on two cores, and nothing is lost.
_EXACT_PAIRS = 10**10
_BLOCK_ROWS = 1 << 15
_GROUP_ROWS = 1 << 15
# Tasks of a step at most: each reads from the folders of all tasks of the step before.
_MOST_SHARDS = 2048


@dataclass(frozen=True)
class Neighbours:
    """What a search has found.

    Attributes:
        similarity: float32 [n, k], falling, in multiples of 2**-20; -inf where no neighbour was found.
        row: int64 [n, k], corpus rows; -1 where no neighbour was found.
        facts: engine; the setting; the recall measured on a sample (1.0 for the exact engine).
    """

    similarity: np.ndarray
    row: np.ndarray
    facts: dict[str, Any]


def find_neighbours(
    queries: Vectors,
    corpus: Vectors,
    neighbours: int,
    config: SearchConfig,
    *,
    exclude_same_row: bool,
    work: Path | None = None,
    shards: ShardsConfig = INLINE,
    announce: Announce | None = None,
) -> Neighbours:
    """The nearest corpus rows of every query, by the engine of `config`.

    By partitions, the bytes are the same at any number of threads and workers, and memory holds the result
    and, for each worker, the float32 vectors of one partition or of one block of rows (of 32,768 rows, or of
    1/2048 of them where that is more), in one of them those of the k-means sample (64 rows per partition),
    and about 150 MB.

    Args:
        queries, corpus: float32 [n, d] and [m, d], unit rows.
        neighbours: k, per query.
        exclude_same_row: queries and corpus are the same files, and row i is no neighbour of itself.
        work: folder of the partitioned search: what an interrupted search of the same vectors with the same
            settings has finished there is used again. A temporary folder by default.
        shards: where the tasks of the partitioned search run.
        announce: gets lines of progress, and one with the engine, its setting and its recall.

    Raises:
        InputError: rows that are not finite, zero or not of length 1; a recall or a number of partitions
            that the corpus cannot have; a work folder of another search; a full disk.
        ShardError: a task failed several times.
        ValueError: the vectors are not of one width.
    """
    if queries.shape[1] != corpus.shape[1]:
        raise ValueError(f"queries are {queries.shape[1]} wide, the corpus {corpus.shape[1]}")
    if exclude_same_row and queries.paths != corpus.paths:
        raise ValueError("exclude_same_row needs queries and corpus to be the same files")
    check_unit_rows(corpus)
    if queries.paths != corpus.paths:
        check_unit_rows(queries)
    engine = config.engine
    if engine == "auto":
        engine = "exact" if len(queries) * len(corpus) <= _EXACT_PAIRS else "partitioned"
    if engine == "exact" or not len(queries) or not len(corpus):
        similarity, row = nearest_neighbours(queries, corpus, neighbours, exclude_same_row)
        _say(announce, f"neighbours: exact, {len(queries):,} x {len(corpus):,}")
        return Neighbours(similarity, row, {"engine": "exact", "recall": 1.0})

    check_partitions(config, len(corpus))
    if engine == "faiss_ivf":
        similarity, row, setting, truth = _search_faiss(queries, corpus, neighbours, config, exclude_same_row)
    else:
        with tempfile.TemporaryDirectory(prefix="neighbours-") as temporary:
            search = PartitionedSearch(work or Path(temporary), shards, announce, lasting=work is not None)
            if work is not None:
                # A temporary folder is nobody else's; hashing the vectors would only cost time.
                search.inputs |= {"queries": queries.digest, "corpus": corpus.digest}
            similarity, row, setting, truth = search.choose_and_run(
                queries, corpus, neighbours, config, exclude_same_row
            )
    judged = truth.every_other(1)
    if not len(judged.query):
        judged = truth
    found = found_similarities(queries, corpus, judged, row[judged.query], exclude_same_row=exclude_same_row)
    recall = float(tie_aware_recall(found, judged.similarity).mean())
    _say(
        announce,
        f"neighbours: {engine}, {len(queries):,} x {len(corpus):,}, {setting.partitions} "
        f"partitions, stored in {setting.store}, asking {setting.probe}; {setting.pairs:,.0f} rows a query; "
        f"recall@{neighbours} {recall:.4f} on {len(judged.query)} queries, expected "
        f"{setting.expected_recall:.4f}",
    )
    facts = {"engine": engine, **asdict(setting), "recall": recall}
    return Neighbours(similarity, row, facts)


# similarity float32 and row int64 [n, k]; how they were searched for; what a sample of them is judged by
_Found = tuple[np.ndarray, np.ndarray, Setting, Truth]


class PartitionedSearch:
    """The steps of the partitioned search in a folder, which may be temporary, each run over its shards.

    Attributes:
        inputs: content hashes of what the next step depends on; those of its steps are added as they end.
    """

    def __init__(
        self, work: Path, shards: ShardsConfig, announce: Announce | None, *, lasting: bool = True
    ) -> None:
        self._work, self._shards, self._announce, self._lasting = work, shards, announce, lasting
        self.inputs: dict[str, str] = {}

    def choose_and_run(
        self, queries: Vectors, corpus: Vectors, neighbours: int, config: SearchConfig, same: bool
    ) -> _Found:
        """Chooses a setting, then searches with it."""
        settings = {"neighbours": neighbours, "same": same, "search": config.model_dump(exclude={"engine"})}
        files = {"queries": queries.paths, "corpus": corpus.paths}
        (chosen,) = self._run(choose, "choose", 1, settings, files)
        setting = Setting(**chosen.facts)
        plan = Plan(
            queries=queries.paths,
            corpus=corpus.paths,
            work=self._work,
            query_rows=len(queries),
            corpus_rows=len(corpus),
            neighbours=neighbours,
            same=same,
            partitions=setting.partitions,
            store=setting.store,
            probe=setting.probe,
            block_rows=max(_BLOCK_ROWS, -(-max(len(queries), len(corpus)) // _MOST_SHARDS)),
            group_partitions=max(
                1, _GROUP_ROWS * setting.partitions // len(corpus), -(-setting.partitions // _MOST_SHARDS)
            ),
        )
        similarity, row = self.neighbours(plan)
        sample = shard_folder(self._work / "choose", 0)
        truth = Truth(*(np.array(load(sample, name)) for name in ("query", "similarity", "row")))
        return similarity, row, setting, truth

    def neighbours(self, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
        """Searches as planned: similarity float32 and row int64 [n, k]."""
        self._step(block_corpus, plan, plan.blocks("corpus"))
        if not plan.same:
            self._step(block_queries, plan, plan.blocks("queries"))
        self._step(search_own, plan, plan.groups("own"))
        self._step(gather_own, plan, plan.query_folders("best_0"))
        for number in range(len(plan.rounds)):
            if number:
                self._step(gather_cross, plan, plan.query_folders(f"best_{number}"), round=number - 1)
            self._step(search_cross, plan, plan.groups(f"cross_{number}"), round=number)
        self._step(merge, plan, plan.query_folders("neighbours"))
        parts = plan.query_folders("neighbours")
        return (
            np.concatenate([load(path, "similarity") for path in parts]),
            np.concatenate([load(path, "row") for path in parts]),
        )

    def _step(self, task: Work, plan: Plan, folders: Sequence[Path], **round: int) -> None:
        """Runs one step of a plan over its folders."""
        self._run(task, folders[0].parent.name, len(folders), plan.settings | round, plan.paths)

    def _run(
        self,
        task: Work,
        step: str,
        count: int,
        settings: Mapping[str, Any],
        paths: Mapping[str, Path | Sequence[Path]],
    ) -> list[Manifest]:
        manifests = run_shards(
            task,
            range(count),
            self._work / step,
            settings=settings,
            inputs=self.inputs,
            paths=paths,
            config=self._shards,
            lasting=self._lasting,
            announce=self._announce,
        )
        self.inputs = {**self.inputs, step: hash_object([manifest.digest for manifest in manifests])}
        return manifests


def _say(announce: Announce | None, line: str) -> None:
    if announce is not None:
        announce(line)


def _search_faiss(queries: Vectors, corpus: Vectors, k: int, config: SearchConfig, same: bool) -> _Found:
    """IndexIVFFlat with the partitions and probes that a sample asks for; all vectors are in memory."""
    truth = sample_truth(queries, corpus, k, 2 * config.recall_sample, exclude_same_row=same)
    # An inverted file stores each row once, and a pair counts for its query only.
    once = config.model_copy(update={"store": 1})
    setting, centroids = choose_setting(queries, corpus, truth.every_other(0), once, same=False)
    quantizer = faiss.IndexFlatIP(corpus.shape[1])
    quantizer.add(centroids)
    index = faiss.IndexIVFFlat(quantizer, corpus.shape[1], len(centroids), faiss.METRIC_INNER_PRODUCT)
    index.train(centroids)
    index.add(corpus[:])
    index.nprobe = setting.probe
    _, row = index.search(queries[:], k + int(same))
    similarity = np.full(row.shape, -np.inf)
    real = row >= 0
    if same:
        real &= row != np.arange(len(row))[:, None]
    similarity[real] = similarities(queries, corpus, np.nonzero(real)[0], row[real])
    row = np.where(real, row, -1)
    order = np.lexsort((row, -similarity), axis=-1)[:, :k]
    return (
        np.take_along_axis(similarity, order, axis=1).astype(np.float32),
        np.take_along_axis(row, order, axis=1),
        setting,
        truth,
    )
