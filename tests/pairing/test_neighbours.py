"""The partitioned search: against the exact one, the same bytes always, odd partitions, bad rows, a kill."""

import errno
import importlib.util
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import killed_search
import numpy as np
import pytest
import torch

from megasbp.errors import InputError
from megasbp.pairing import neighbours as front
from megasbp.pairing import partition_search
from megasbp.pairing.config import SearchConfig
from megasbp.pairing.embedding import unit_rows
from megasbp.pairing.neighbours import Neighbours, PartitionedSearch, find_neighbours
from megasbp.pairing.partition_search import Plan
from megasbp.pairing.partitions import fit_centroids, load, save
from megasbp.pairing.recall import found_similarities, sample_truth, tie_aware_recall
from megasbp.pairing.search import nearest_neighbours
from megasbp.pairing.vectors import Vectors
from megasbp.shards import attempt
from megasbp.shards.config import INLINE, ShardsConfig
from megasbp.shards.engine import run_shards
from megasbp.shards.job import Work, find_work
from megasbp.storage import read_manifest

# Three groups of partitions, two blocks and two rounds, so that every step is there and has several shards.
CONFIG = SearchConfig(engine="partitioned", partitions=9, probe=5, store=1, recall_sample=50)


def clustered(rows: int, dimensions: int = 24, clusters: int = 40, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(clusters, dimensions))
    near = centres[generator.integers(clusters, size=rows)] + 0.8 * generator.normal(size=(rows, dimensions))
    return unit_rows(near)


def saved(path: Path, vectors: np.ndarray) -> Path:
    np.save(path, vectors)
    return path


def plan_of(folder: Path, corpus: np.ndarray, queries: np.ndarray | None = None, **changes: int) -> Plan:
    """A plan over several blocks and groups, with its centroids; all partitions are asked by default."""
    folder.mkdir()
    corpus_path = saved(folder / "corpus.npy", corpus)
    settings = {"partitions": 8, "store": 1, "probe": 8, "neighbours": 10, "block_rows": 300} | changes
    plan = Plan(
        queries=[corpus_path if queries is None else saved(folder / "queries.npy", queries)],
        corpus=[corpus_path],
        work=folder / "work",
        query_rows=len(corpus if queries is None else queries),
        corpus_rows=len(corpus),
        same=queries is None,
        group_partitions=3,
        **settings,
    )
    chosen = plan.work / "choose" / "shard-000000"
    chosen.mkdir(parents=True)
    save(chosen, "centroids", fit_centroids(corpus, plan.partitions))
    return plan


def search(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    return PartitionedSearch(plan.work, INLINE, None).neighbours(plan)


def find_same(
    path: Path, work: Path | None = None, config: SearchConfig = CONFIG, **changes: Any
) -> Neighbours:
    """Five neighbours of every row among the others."""
    vectors = Vectors([path])
    return find_neighbours(vectors, vectors, 5, config, exclude_same_row=True, work=work, **changes)


def arrays(work: Path) -> dict[str, bytes]:
    """What the steps' shards hold, without their manifests."""
    return {str(path.relative_to(work)): path.read_bytes() for path in work.rglob("*.npy")}


@pytest.fixture
def several_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "_BLOCK_ROWS", 300)
    monkeypatch.setattr(front, "_GROUP_ROWS", 200)


def assert_same_neighbours(
    found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]
) -> None:
    assert (found[0] == expected[0]).all() and (found[1] == expected[1]).all()


@pytest.mark.parametrize(("store", "partitions"), [(1, 1), (1, 3), (1, 8), (2, 8)])
def test_asking_every_partition_is_exact(tmp_path: Path, store: int, partitions: int) -> None:
    corpus = clustered(1000)
    # One partition asks nobody else, three in one round, eight in two.
    found = search(plan_of(tmp_path / "run", corpus, store=store, partitions=partitions, probe=partitions))
    assert_same_neighbours(found, nearest_neighbours(corpus, corpus, 10, exclude_same_row=True))


def test_queries_that_are_no_corpus_rows(tmp_path: Path) -> None:
    corpus, queries = clustered(900), clustered(350, seed=1)
    found = search(plan_of(tmp_path / "run", corpus, queries))
    assert_same_neighbours(found, nearest_neighbours(queries, corpus, 10, exclude_same_row=False))


def test_recall_of_a_few_partitions(tmp_path: Path) -> None:
    corpus = clustered(3000)
    plan = plan_of(tmp_path / "run", corpus, partitions=32, probe=4, block_rows=2000)
    _, row = search(plan)
    truth = sample_truth(corpus, corpus, 10, len(corpus), exclude_same_row=True)
    found = found_similarities(corpus, corpus, truth, row, exclude_same_row=True)
    # About a fifth of the pairs are looked at.
    assert 0.85 < tie_aware_recall(found, truth.similarity).mean() < 1


def test_the_bytes_do_not_depend_on_threads_blocks_or_groups(tmp_path: Path) -> None:
    corpus = clustered(2000)
    threads = torch.get_num_threads()
    results = []
    try:
        for count, block_rows in ((1, 2000), (2, 700)):
            torch.set_num_threads(count)
            plan = plan_of(tmp_path / str(count), corpus, partitions=16, probe=3, block_rows=block_rows)
            results.append(search(plan))
            results.append(np.load(plan.work / "choose" / "shard-000000" / "centroids.npy"))
    finally:
        torch.set_num_threads(threads)
    assert_same_neighbours(results[0], results[2])
    assert (results[1] == results[3]).all()


def test_duplicates_lone_rows_and_empty_partitions(tmp_path: Path) -> None:
    # Each of the 3 points is there 30 times, and 3 rows stand alone: most of the 8 partitions are empty.
    corpus = np.concatenate(
        [np.repeat(np.eye(8, dtype=np.float32)[:3], 30, axis=0), -np.eye(8, dtype=np.float32)[5:]]
    )
    plan = plan_of(tmp_path / "run", corpus, block_rows=50)
    assert_same_neighbours(search(plan), nearest_neighbours(corpus, corpus, 10, exclude_same_row=True))


def test_rows_that_are_all_equal(tmp_path: Path) -> None:
    corpus = np.repeat(clustered(1), 200, axis=0)
    plan = plan_of(tmp_path / "run", corpus, probe=2)
    assert_same_neighbours(search(plan), nearest_neighbours(corpus, corpus, 10, exclude_same_row=True))


def test_fewer_rows_than_neighbours(tmp_path: Path) -> None:
    corpus = clustered(7)
    plan = plan_of(tmp_path / "run", corpus, partitions=3, probe=3)
    similarity, row = search(plan)
    assert ((row >= 0).sum(axis=1) == 6).all() and (similarity[:, 6:] == -np.inf).all()
    assert_same_neighbours((similarity, row), nearest_neighbours(corpus, corpus, 10, exclude_same_row=True))


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("few_descriptors")
def test_there_may_be_more_blocks_than_open_files(tmp_path: Path) -> None:
    corpus = clustered(280)
    plan = plan_of(tmp_path / "run", corpus, block_rows=2)

    def run(step: Work, folders: list[Path], **round: int) -> None:
        for shard, folder in enumerate(folders):
            folder.mkdir(parents=True)
            step(shard, folder, **vars(plan), **round)

    # Without a manifest for each shard, which would take most of the time.
    run(partition_search.block_corpus, plan.blocks("corpus"))
    run(partition_search.search_own, plan.groups("own"))
    run(partition_search.gather_own, plan.query_folders("best_0"))
    run(partition_search.search_cross, plan.groups("cross_0"), round=0)
    run(partition_search.gather_cross, plan.query_folders("best_1"), round=0)
    run(partition_search.search_cross, plan.groups("cross_1"), round=1)
    run(partition_search.merge, plan.query_folders("neighbours"))
    parts = plan.query_folders("neighbours")
    similarity, row = (np.concatenate([load(path, name) for path in parts]) for name in ("similarity", "row"))
    assert_same_neighbours((similarity, row), nearest_neighbours(corpus, corpus, 10, exclude_same_row=True))


def test_each_file_is_opened_once_whatever_the_queries_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, queries = clustered(240), clustered(250, seed=1)
    plan = plan_of(tmp_path / "run", corpus, queries)
    expected = search(plan)
    files = {
        name: [saved(tmp_path / f"{name}-{i}.npy", part) for i, part in enumerate(np.array_split(whole, 6))]
        for name, whole in (("corpus", corpus), ("queries", queries))
    }
    opened: list[Path] = []
    open_file = Vectors.open

    def count(vectors: Vectors, file: int) -> np.ndarray:
        opened.append(vectors.paths[file])
        return open_file(vectors, file)

    monkeypatch.setattr(Vectors, "open", count)
    partition_search.merge(0, tmp_path, **(vars(plan) | files))
    assert sorted(opened) == sorted(files["corpus"] + files["queries"])
    merged = np.load(tmp_path / "similarity.npy"), np.load(tmp_path / "row.npy")
    assert_same_neighbours(merged, expected)

    opened.clear()
    truth = sample_truth(queries, corpus, 10, 100, exclude_same_row=False)
    row = expected[1][truth.query]
    vectors = Vectors(files["queries"]), Vectors(files["corpus"])
    found = found_similarities(*vectors, truth, row, exclude_same_row=False)
    assert sorted(opened) == sorted(files["corpus"] + files["queries"])
    assert (found == found_similarities(queries, corpus, truth, row, exclude_same_row=False)).all()


@pytest.mark.usefixtures("several_shards")
@pytest.mark.parametrize(
    "step", ["block_corpus", "search_own", "gather_own", "search_cross", "gather_cross", "merge"]
)
def test_a_search_that_was_killed_continues_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = saved(tmp_path / "v.npy", clustered(400))
    whole = find_same(path, tmp_path / "whole")

    def find_dying(name: str) -> Work:
        task = find_work(name)

        def work_or_death(shard: int, folder: Path, **settings: Any) -> Any:
            facts = task(shard, folder, **settings)
            if name.endswith(f":{step}") and shard == 1:
                raise KeyboardInterrupt
            return facts

        return work_or_death

    work = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(attempt, "find_work", find_dying)
        with pytest.raises(KeyboardInterrupt):
            find_same(path, work)
    kept = {path: path.stat().st_mtime_ns for path in work.rglob("*.npy")}
    found = find_same(path, work)
    assert_same_neighbours((found.similarity, found.row), (whole.similarity, whole.row))
    assert found.facts == whole.facts
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert arrays(work) == arrays(tmp_path / "whole")


@pytest.mark.usefixtures("several_shards")
def test_workers_change_no_byte_and_neither_does_the_death_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "v.npy", clustered(400))
    whole = find_same(path, tmp_path / "inline")
    monkeypatch.setattr(front, "search_cross", killed_search.search_cross)
    monkeypatch.setenv(killed_search.MARK, str(tmp_path / "died"))
    lines: list[str] = []
    shards = ShardsConfig(engine="local", workers=2)
    found = find_same(path, tmp_path / "local", shards=shards, announce=lines.append)
    assert any("shard 1: its worker was killed (SIGKILL" in line for line in lines)
    assert_same_neighbours((found.similarity, found.row), (whole.similarity, whole.row))
    assert arrays(tmp_path / "local") == arrays(tmp_path / "inline")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray (pip install .[ray])")
@pytest.mark.usefixtures("several_shards")
def test_a_search_on_ray_gives_the_same_bytes(tmp_path: Path) -> None:
    path = saved(tmp_path / "v.npy", clustered(400))
    whole = find_same(path, tmp_path / "inline")
    found = find_same(path, tmp_path / "ray", shards=ShardsConfig(engine="ray", workers=2))
    assert_same_neighbours((found.similarity, found.row), (whole.similarity, whole.row))
    assert arrays(tmp_path / "ray") == arrays(tmp_path / "inline")


@pytest.mark.usefixtures("several_shards")
def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, work = saved(tmp_path / "v.npy", clustered(400)), tmp_path / "work"
    whole = find_same(path)

    def no_space(folder: Path, name: str, array: np.ndarray) -> None:
        if folder.parent.name == "cross_0":
            raise OSError(errno.ENOSPC, "No space left on device")
        save(folder, name, array)

    with monkeypatch.context() as patch:
        patch.setattr(partition_search, "save", no_space)
        with pytest.raises(
            InputError, match=r"shard 0: no space left for .*cross_0 .* finished shards are kept"
        ):
            find_same(path, work)
    kept = {path: path.stat().st_mtime_ns for path in work.rglob("*.npy")}
    assert {path.parent.parent.name for path in kept} == {"choose", "corpus_blocks", "own", "best_0"}
    found = find_same(path, work)
    assert_same_neighbours((found.similarity, found.row), (whole.similarity, whole.row))
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_only_a_work_folder_is_hashed(tmp_path: Path) -> None:
    path, held = saved(tmp_path / "v.npy", clustered(200)), []

    def keep(task: Work, *arguments: Any, **settings: Any) -> Any:
        held.append(settings["lasting"])
        return run_shards(task, *arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(front, "run_shards", keep)
        temporary = find_same(path)
        assert not any(held)
        work = find_same(path, tmp_path / "work")
    assert_same_neighbours((temporary.similarity, temporary.row), (work.similarity, work.row))
    manifest = read_manifest(tmp_path / "work" / "own" / "shard-000000", "hashes")
    assert manifest is not None and all("sha256" in entry for entry in manifest.files.values())


def test_a_work_folder_of_another_search_is_refused(tmp_path: Path) -> None:
    first, other = (saved(tmp_path / f"{seed}.npy", clustered(200, seed=seed)) for seed in (0, 1))
    find_same(first, tmp_path / "work")
    before = arrays(tmp_path / "work")
    with pytest.raises(InputError, match="made with corpus .*, now .*; use another folder"):
        find_same(other, tmp_path / "work")
    with pytest.raises(InputError, match="made with search .*, now .*; use another folder"):
        find_same(first, tmp_path / "work", CONFIG.model_copy(update={"probe": 4}))
    assert arrays(tmp_path / "work") == before


@pytest.mark.usefixtures("several_shards")
@pytest.mark.parametrize("engine", ["partitioned", "faiss_ivf", "exact"])
def test_vectors_cut_at_odd_places_give_the_same_bytes(tmp_path: Path, engine: str) -> None:
    corpus, queries = clustered(700), clustered(330, seed=1)
    config = CONFIG.model_copy(update={"engine": engine})

    def cut(name: str, vectors: np.ndarray, places: list[int]) -> Vectors:
        parts = np.split(vectors, places)
        return Vectors([saved(tmp_path / f"{name}-{i}.npy", part) for i, part in enumerate(parts)])

    one = cut("c", corpus, []), cut("q", queries, [])
    # One part is empty, and the blocks of rows end elsewhere.
    several = cut("cs", corpus, [1, 299, 299, 555]), cut("qs", queries, [77, 301])
    for among in (False, True):
        found, expected = (
            find_neighbours(both[0] if among else both[1], both[0], 5, config, exclude_same_row=among)
            for both in (several, one)
        )
        assert_same_neighbours((found.similarity, found.row), (expected.similarity, expected.row))
        assert found.facts == expected.facts


@pytest.mark.parametrize("engine", ["partitioned", "faiss_ivf"])
def test_settings_are_chosen_for_the_recall_and_it_is_reported(tmp_path: Path, engine: str) -> None:
    vectors = clustered(4000)
    path = saved(tmp_path / "v.npy", vectors)
    lines: list[str] = []
    config = SearchConfig(engine=engine, recall=0.9, recall_sample=300)
    both = Vectors([path])
    found = find_neighbours(both, both, 10, config, exclude_same_row=True, announce=lines.append)
    truth = sample_truth(vectors, vectors, 10, len(vectors), exclude_same_row=True)
    worth = found_similarities(vectors, vectors, truth, found.row, exclude_same_row=True)
    true_recall = tie_aware_recall(worth, truth.similarity).mean()
    assert true_recall > 0.88 and found.facts["probe"] < found.facts["partitions"]
    assert abs(found.facts["recall"] - true_recall) < 0.03
    assert f"recall@10 {found.facts['recall']:.4f}" in lines[-1]


def test_few_rows_are_searched_exactly(tmp_path: Path) -> None:
    vectors = clustered(300)
    path = saved(tmp_path / "v.npy", vectors)
    found = find_same(path, config=SearchConfig())
    assert found.facts == {"engine": "exact", "recall": 1.0}
    assert_same_neighbours((found.similarity, found.row), nearest_neighbours(vectors, vectors, 5, True))


@pytest.mark.parametrize(
    ("value", "fault"),
    [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "zero"), (0.5, "not of length 1")],
)
def test_rows_without_a_direction_are_named(tmp_path: Path, value: float, fault: str) -> None:
    first, second = clustered(20), clustered(50)
    second[[7, 31]] = second[[7, 31]] * value
    paths = saved(tmp_path / "first.npy", first), saved(tmp_path / "second.npy", second)
    vectors = Vectors(paths)
    with pytest.raises(InputError, match=rf"second\.npy: 2 of 50 rows are {fault} \(first: 7, 31\)"):
        find_neighbours(vectors, vectors, 4, CONFIG, exclude_same_row=True, work=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_more_partitions_than_rows_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "v.npy", clustered(20))
    with pytest.raises(InputError, match="partitions = 50"):
        find_same(path, config=SearchConfig(engine="partitioned", partitions=50))
