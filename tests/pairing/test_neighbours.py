"""The partitioned search: against the exact one, the same bytes always, odd partitions, bad rows, a kill."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from megasbp.errors import InputError
from megasbp.pairing.config import SearchConfig
from megasbp.pairing.embedding import unit_rows
from megasbp.pairing.neighbours import Task, find_neighbours, run_here, search_partitions
from megasbp.pairing.partition_search import Plan
from megasbp.pairing.partitions import fit_centroids, save
from megasbp.pairing.recall import found_similarities, sample_truth, tie_aware_recall
from megasbp.pairing.search import nearest_neighbours


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
        queries=corpus_path if queries is None else saved(folder / "queries.npy", queries),
        corpus=corpus_path,
        work=folder / "work",
        same=queries is None,
        group_partitions=3,
        **settings,
    )
    plan.work.mkdir()
    save(plan.work, "centroids", fit_centroids(corpus, plan.partitions))
    return plan


def assert_same_neighbours(
    found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]
) -> None:
    assert (found[0] == expected[0]).all() and (found[1] == expected[1]).all()


@pytest.mark.parametrize("store", [1, 2])
def test_asking_every_partition_is_exact(tmp_path: Path, store: int) -> None:
    corpus = clustered(1000)
    found = search_partitions(plan_of(tmp_path / "run", corpus, store=store), run_here)
    assert_same_neighbours(found, nearest_neighbours(corpus, corpus, 10, exclude_same_row=True))


def test_queries_that_are_no_corpus_rows(tmp_path: Path) -> None:
    corpus, queries = clustered(900), clustered(350, seed=1)
    found = search_partitions(plan_of(tmp_path / "run", corpus, queries), run_here)
    assert_same_neighbours(found, nearest_neighbours(queries, corpus, 10, exclude_same_row=False))


def test_recall_of_a_few_partitions(tmp_path: Path) -> None:
    corpus = clustered(3000)
    plan = plan_of(tmp_path / "run", corpus, partitions=32, probe=4, block_rows=2000)
    _, row = search_partitions(plan, run_here)
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
            results.append(search_partitions(plan, run_here))
            results.append(np.load(plan.work / "centroids.npy"))
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
    assert_same_neighbours(
        search_partitions(plan, run_here), nearest_neighbours(corpus, corpus, 10, exclude_same_row=True)
    )


def test_rows_that_are_all_equal(tmp_path: Path) -> None:
    corpus = np.repeat(clustered(1), 200, axis=0)
    plan = plan_of(tmp_path / "run", corpus, probe=2)
    assert_same_neighbours(
        search_partitions(plan, run_here), nearest_neighbours(corpus, corpus, 10, exclude_same_row=True)
    )


def test_fewer_rows_than_neighbours(tmp_path: Path) -> None:
    corpus = clustered(7)
    plan = plan_of(tmp_path / "run", corpus, partitions=3, probe=3)
    similarity, row = search_partitions(plan, run_here)
    assert ((row >= 0).sum(axis=1) == 6).all() and (similarity[:, 6:] == -np.inf).all()
    assert_same_neighbours((similarity, row), nearest_neighbours(corpus, corpus, 10, exclude_same_row=True))


class Killed(Exception):
    pass


@pytest.mark.parametrize("tasks", [1, 6, 11, 14])
def test_a_search_that_was_killed_continues_with_the_same_bytes(tmp_path: Path, tasks: int) -> None:
    corpus = clustered(800)
    whole = search_partitions(plan_of(tmp_path / "whole", corpus, probe=3), run_here)
    plan = plan_of(tmp_path / "killed", corpus, probe=3)
    done: list[Path] = []

    def run_and_die(task: Task, folders: Sequence[Path], plan: Plan) -> None:
        def task_or_death(shard: int, folder: Path, plan: Plan) -> None:
            task(shard, folder, plan)
            if len(done) == tasks:
                # What a killed writer leaves behind.
                folder.with_name(f"{shard:05d}.partial-1").mkdir()
                raise Killed
            done.append(folder)

        run_here(task_or_death, folders, plan)

    with pytest.raises(Killed):
        search_partitions(plan, run_and_die)
    kept = {path: path.stat().st_mtime_ns for path in plan.work.rglob("*.npy")}
    assert_same_neighbours(search_partitions(plan, run_here), whole)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert not list(plan.work.rglob("*.partial-*"))


def test_a_work_folder_of_another_search_is_refused(tmp_path: Path) -> None:
    config = SearchConfig(engine="partitioned", partitions=4, probe=2, store=1)
    first, other = (saved(tmp_path / f"{seed}.npy", clustered(200, seed=seed)) for seed in (0, 1))
    find_neighbours(first, first, 3, config, exclude_same_row=True, work=tmp_path / "work")
    with pytest.raises(InputError, match="another search"):
        find_neighbours(other, other, 3, config, exclude_same_row=True, work=tmp_path / "work")


@pytest.mark.parametrize("engine", ["partitioned", "faiss_ivf"])
def test_settings_are_chosen_for_the_recall_and_it_is_reported(tmp_path: Path, engine: str) -> None:
    vectors = clustered(4000)
    path = saved(tmp_path / "v.npy", vectors)
    lines: list[str] = []
    config = SearchConfig(engine=engine, recall=0.9, recall_sample=300)
    found = find_neighbours(path, path, 10, config, exclude_same_row=True, report=lines.append)
    truth = sample_truth(vectors, vectors, 10, len(vectors), exclude_same_row=True)
    worth = found_similarities(vectors, vectors, truth, found.row, exclude_same_row=True)
    true_recall = tie_aware_recall(worth, truth.similarity).mean()
    assert true_recall > 0.88 and found.facts["probe"] < found.facts["partitions"]
    assert abs(found.facts["recall"] - true_recall) < 0.03
    assert len(lines) == 1 and f"recall@10 {found.facts['recall']:.4f}" in lines[0]


def test_few_rows_are_searched_exactly(tmp_path: Path) -> None:
    vectors = clustered(300)
    path = saved(tmp_path / "v.npy", vectors)
    found = find_neighbours(path, path, 4, SearchConfig(), exclude_same_row=True)
    assert found.facts == {"engine": "exact", "recall": 1.0}
    assert_same_neighbours((found.similarity, found.row), nearest_neighbours(vectors, vectors, 4, True))


@pytest.mark.parametrize(
    ("value", "fault"),
    [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "zero"), (0.5, "not of length 1")],
)
def test_rows_without_a_direction_are_named(tmp_path: Path, value: float, fault: str) -> None:
    vectors = clustered(50)
    vectors[[7, 31]] = vectors[[7, 31]] * value
    path = saved(tmp_path / "v.npy", vectors)
    with pytest.raises(InputError, match=rf"v\.npy: 2 of 50 rows are {fault} \(first: 7, 31\)"):
        find_neighbours(path, path, 4, SearchConfig(), exclude_same_row=True, work=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_more_partitions_than_rows_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "v.npy", clustered(20))
    with pytest.raises(InputError, match="partitions = 50"):
        config = SearchConfig(engine="partitioned", partitions=50)
        find_neighbours(path, path, 4, config, exclude_same_row=True)
