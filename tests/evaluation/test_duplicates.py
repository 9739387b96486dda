"""Near-duplicates among the first N: as in memory, at sizes that compare, and across a stop."""

from pathlib import Path

import numpy as np
import pytest

from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.errors import InputError
from megasbp.evaluation import duplicates
from megasbp.evaluation.duplicates import near_duplicates_at, sizes_to_measure
from megasbp.overlap.clusters import near_duplicate_clusters


def write(prefix: Path, documents: list[np.ndarray]) -> IndexedDataset:
    with IndexedDatasetWriter(prefix, np.uint16, metadata={"bos": 0, "eos": 1}) as writer:
        for document in documents:
            writer.add_document(np.concatenate([[0], document, [1]]).astype(np.uint16))
    return IndexedDataset(prefix)


def documents_with_copies(count: int) -> list[np.ndarray]:
    """Every third document is an earlier one with its last token changed."""
    generator = np.random.default_rng(0)
    made: list[np.ndarray] = []
    for number in range(count):
        if number % 3 == 2:
            copy = made[int(generator.integers(len(made)))].copy()
            copy[-1] = 2 + number
            made.append(copy)
        else:
            made.append(generator.integers(2, 60_000, size=80))
    return made


def test_shares_are_those_of_the_first_documents_clustered_in_memory(tmp_path: Path) -> None:
    documents = documents_with_copies(240)
    dataset = write(tmp_path / "set", documents)
    found = near_duplicates_at(
        {"sbp": (dataset, np.arange)}, (30, 120, 240, 500), tmp_path, width=5, threshold=0.7
    )
    expected = {}
    for size in (30, 120, 240):
        labels = near_duplicate_clusters(documents[:size], width=5, threshold=0.7, seed=0)
        expected[str(size)] = (size - len(np.unique(labels))) / size
    assert found == {"sbp": expected}
    assert expected["240"] == pytest.approx(1 / 3)
    assert not (tmp_path / "work").exists()


def test_a_set_is_read_in_its_own_order(tmp_path: Path) -> None:
    same, other = np.arange(2, 60), np.arange(100, 160)
    dataset = write(tmp_path / "set", [same, other, same])
    sets = {"real": (dataset, lambda size: np.array([2, 0, 1])[:size])}
    assert near_duplicates_at(sets, (2,), tmp_path, width=5, threshold=0.7) == {"real": {"2": 0.5}}


def test_sizes_compare_all_sets_at_one_and_follow_the_largest_synthetic_one() -> None:
    assert sizes_to_measure({"sbp": 1600, "random_pairs": 1500}, 6000, (1000, 10_000)) == [1000, 1500]
    assert sizes_to_measure({"sbp": 30_000}, 20_000, (1000, 10_000, 100_000)) == [1000, 10_000, 20_000]
    assert sizes_to_measure({"sbp": 40}, 500, (1000,)) == [40]
    # Beyond the largest size wanted nothing is measured.
    assert sizes_to_measure({"sbp": 5000}, 6000, (1000,)) == [1000]
    with pytest.raises(InputError, match="sbp has no documents"):
        sizes_to_measure({"sbp": 0}, 10, (1000,))


def test_a_call_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write(tmp_path / "set", documents_with_copies(60))
    sets, whole = {"sbp": (dataset, np.arange)}, tmp_path / "whole"
    whole.mkdir()
    expected = near_duplicates_at(sets, (30, 60), whole, width=5, threshold=0.7)
    calls: list[int] = []
    cluster = duplicates.cluster_corpus

    def stopped(datasets: list[Path], *arguments: object, **named: object) -> object:
        calls.append(len(IndexedDataset(datasets[0])))
        if calls == [30, 60]:
            raise KeyboardInterrupt
        return cluster(datasets, *arguments, **named)

    monkeypatch.setattr(duplicates, "cluster_corpus", stopped)
    with pytest.raises(KeyboardInterrupt):
        near_duplicates_at(sets, (30, 60), tmp_path, width=5, threshold=0.7)
    assert near_duplicates_at(sets, (30, 60), tmp_path, width=5, threshold=0.7) == expected
    # The size that was finished is not made again.
    assert calls == [30, 60, 60]
    assert sorted(path.name for path in tmp_path.glob("*-*.json")) == ["sbp-30.json", "sbp-60.json"]
