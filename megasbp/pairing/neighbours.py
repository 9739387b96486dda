"""One front for the neighbour search: exact, by partitions, or by faiss; with the recall of a sample."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from megasbp.errors import InputError
from megasbp.pairing.config import SearchConfig
from megasbp.pairing.partition_choice import Setting, choose_setting
from megasbp.pairing.partition_search import (
    Plan,
    block_corpus,
    block_queries,
    gather_own,
    merge,
    search_cross,
    search_own,
)
from megasbp.pairing.partitions import load, save
from megasbp.pairing.recall import found_similarities, sample_truth, tie_aware_recall
from megasbp.pairing.search import nearest_neighbours
from megasbp.pairing.similarity import check_unit_rows, similarities
from megasbp.storage import hash_file, publish_json, publishing_folder, read_json, remove_partials

Task = Callable[[int, Path, Plan], None]
# (task, one folder per shard, plan): fills each folder that is not there yet, publishes it when it is whole.
Runner = Callable[[Task, Sequence[Path], Plan], None]

# Up to here exact search takes less than about a minute on two cores, and nothing is lost.
_EXACT_PAIRS = 10**10
_BLOCK_ROWS = 1 << 15
_GROUP_ROWS = 1 << 13
# What the bytes of a partitioned search's folders depend on, beside the vectors.
_IDENTITY = ("neighbours", "same", "partitions", "store", "probe", "block_rows", "group_partitions")


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


def run_here(task: Task, folders: Sequence[Path], plan: Plan) -> None:
    """Fills the folders one after the other in this process."""
    for shard, folder in enumerate(folders):
        if not folder.is_dir():
            remove_partials(folder.parent)
            with publishing_folder(folder) as partial:
                task(shard, partial, plan)


def find_neighbours(
    queries: Path,
    corpus: Path,
    neighbours: int,
    config: SearchConfig,
    *,
    exclude_same_row: bool,
    work: Path | None = None,
    run: Runner = run_here,
    device: str = "cpu",
    report: Callable[[str], None] = lambda line: None,
) -> Neighbours:
    """The nearest corpus rows of every query, by the engine of `config`.

    By partitions, the bytes are the same at any number of threads and with any runner, and memory holds the
    result, the vectors of one partition in float32, those of the k-means sample (64 rows per partition), and
    about 150 MB.

    Args:
        queries, corpus: NAME.npy, float32 [n, d] and [m, d], unit rows.
        neighbours: k, per query.
        exclude_same_row: queries and corpus are one file, and row i is no neighbour of itself.
        work: folder of the partitioned search: what an interrupted search of the same vectors with the same
            settings has finished there is used again. A temporary folder by default.
        run: how the tasks of a step are run.
        device: torch device of the matrix products.
        report: gets a line with the engine, its setting and its recall.

    Raises:
        InputError: rows that are not finite, zero or not of length 1; a recall or a number of partitions
            that the corpus cannot have; a work folder of another search.
        ValueError: the arrays are no float32 matrices of one width.
    """
    query_vectors, corpus_vectors = _open(queries), _open(corpus)
    if query_vectors.shape[1] != corpus_vectors.shape[1]:
        raise ValueError(f"{queries} is {query_vectors.shape[1]} wide, {corpus} {corpus_vectors.shape[1]}")
    if exclude_same_row and queries != corpus:
        raise ValueError("exclude_same_row needs queries and corpus to be one file")
    for path, vectors in {corpus: corpus_vectors, queries: query_vectors}.items():
        check_unit_rows(vectors, str(path))
    engine = config.engine
    if engine == "auto":
        few = len(query_vectors) * len(corpus_vectors) <= _EXACT_PAIRS
        engine = "exact" if few else "partitioned"
    if engine == "exact" or not len(query_vectors) or not len(corpus_vectors):
        similarity, row = nearest_neighbours(
            np.asarray(query_vectors), np.asarray(corpus_vectors), neighbours, exclude_same_row
        )
        report(f"neighbours: exact, {len(query_vectors):,} x {len(corpus_vectors):,}")
        return Neighbours(similarity, row, {"engine": "exact", "recall": 1.0})

    truth = sample_truth(
        query_vectors,
        corpus_vectors,
        neighbours,
        2 * config.recall_sample,
        exclude_same_row=exclude_same_row,
        device=device,
    )
    # Chosen on every other query of the sample, judged on the rest.
    ours = engine == "partitioned"
    setting, centroids = choose_setting(
        query_vectors,
        corpus_vectors,
        truth.every_other(0),
        # An inverted file stores each row once, and a pair counts for its query only.
        config if ours else config.model_copy(update={"store": 1}),
        same=exclude_same_row and ours,
        device=device,
    )
    if not ours:
        similarity, row = _search_faiss(
            query_vectors, corpus_vectors, neighbours, setting, centroids, exclude_same_row
        )
    else:
        with tempfile.TemporaryDirectory(prefix="neighbours-") as temporary:
            folder = Path(temporary) if work is None else work
            plan = Plan(
                queries=queries,
                corpus=corpus,
                work=folder,
                neighbours=neighbours,
                same=exclude_same_row,
                partitions=setting.partitions,
                store=setting.store,
                probe=setting.probe,
                block_rows=_BLOCK_ROWS,
                group_partitions=max(1, _GROUP_ROWS * setting.partitions // len(corpus_vectors)),
                device=device,
            )
            _claim(folder, plan, centroids, persistent=work is not None)
            similarity, row = search_partitions(plan, run)
    judged = truth.every_other(1)
    if not len(judged.query):
        judged = truth
    found = found_similarities(
        query_vectors, corpus_vectors, judged, row[judged.query], exclude_same_row=exclude_same_row
    )
    recall = float(tie_aware_recall(found, judged.similarity).mean())
    report(
        f"neighbours: {engine}, {len(query_vectors):,} x {len(corpus_vectors):,}, {setting.partitions} "
        f"partitions, stored in {setting.store}, asking {setting.probe}; {setting.pairs:,.0f} rows a query; "
        f"recall@{neighbours} {recall:.4f} on {len(judged.query)} queries, expected "
        f"{setting.expected_recall:.4f}"
    )
    facts = {"engine": engine, **asdict(setting), "recall": recall}
    return Neighbours(similarity, row, facts)


def search_partitions(plan: Plan, run: Runner) -> tuple[np.ndarray, np.ndarray]:
    """Runs the steps of the partitioned search: similarity float32 and row int64 [n, k]."""
    run(block_corpus, plan.blocks("corpus"), plan)
    if not plan.same:
        run(block_queries, plan.blocks("queries"), plan)
    run(search_own, plan.groups("own"), plan)
    run(gather_own, plan.query_folders("limits"), plan)
    run(search_cross, plan.groups("cross"), plan)
    run(merge, plan.query_folders("neighbours"), plan)
    parts = plan.query_folders("neighbours")
    return (
        np.concatenate([load(path, "similarity") for path in parts]),
        np.concatenate([load(path, "row") for path in parts]),
    )


def _open(path: Path) -> np.ndarray:
    vectors = load(path.parent, path.stem)
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise ValueError(f"{path} is {vectors.dtype} {vectors.shape}, must be a float32 matrix")
    return vectors


def _claim(folder: Path, plan: Plan, centroids: np.ndarray, *, persistent: bool) -> None:
    """Writes centroids and identity of a search into its folder, or checks that they are the same."""
    folder.mkdir(parents=True, exist_ok=True)
    # A temporary folder is nobody else's; hashing the vectors would only cost time.
    files = {plan.queries, plan.corpus} if persistent else set()
    identity = {
        "vectors": sorted(hash_file(path) for path in files),
        "centroids": hashlib.sha256(centroids.tobytes()).hexdigest(),
        **{name: getattr(plan, name) for name in _IDENTITY},
    }
    marker = folder / "search.json"
    if marker.is_file() and read_json(marker) != identity:
        raise InputError(f"{folder}: holds another search; give an empty folder or remove it")
    save(folder, "centroids", centroids)
    publish_json(marker, identity)


def _search_faiss(
    queries: np.ndarray,
    corpus: np.ndarray,
    k: int,
    setting: Setting,
    centroids: np.ndarray,
    exclude_same_row: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """IndexIVFFlat with the same partitions and probes; in memory."""
    quantizer = faiss.IndexFlatIP(corpus.shape[1])
    quantizer.add(centroids)
    index = faiss.IndexIVFFlat(quantizer, corpus.shape[1], len(centroids), faiss.METRIC_INNER_PRODUCT)
    index.train(centroids)
    index.add(np.ascontiguousarray(corpus))
    index.nprobe = setting.probe
    _, row = index.search(np.ascontiguousarray(queries), k + int(exclude_same_row))
    similarity = np.full(row.shape, -np.inf)
    real = row >= 0
    if exclude_same_row:
        real &= row != np.arange(len(row))[:, None]
    similarity[real] = similarities(queries, corpus, np.nonzero(real)[0], row[real])
    row = np.where(real, row, -1)
    order = np.lexsort((row, -similarity), axis=-1)[:, :k]
    return (
        np.take_along_axis(similarity, order, axis=1).astype(np.float32),
        np.take_along_axis(row, order, axis=1),
    )
