from pathlib import Path

import numpy as np
import overlap_reference as reference
import pytest
from test_clusters import mutated, partition, small_corpus

import megasbp._C as core
from megasbp.data.array_file import ArrayFile
from megasbp.errors import InputError
from megasbp.overlap.candidates import agreeing_slots, load_pairs, write_candidates, write_verified
from megasbp.overlap.clusters import near_duplicate_clusters, rows_per_band
from megasbp.overlap.corpus_clusters import cluster_corpus, load_clusters, parts_for, write_clusters
from megasbp.overlap.dataset_shards import DatasetShards
from megasbp.overlap.signatures import write_signatures

WIDTH = 5


@pytest.fixture
def cluster(write_shards, tmp_path):
    """Labels of documents, by way of the disk."""

    def labels(documents, *, threshold, bounds=(), folder="run", **settings) -> np.ndarray:
        datasets = write_shards(documents, bounds, name=folder)
        facts = cluster_corpus(
            datasets, tmp_path / folder, width=WIDTH, threshold=threshold, seed=1, announce=None, **settings
        )
        found = load_clusters(tmp_path / folder)
        assert facts["clusters"] == len(set(found.tolist()))
        return found

    return labels


def planted_corpus(seed: int, originals: int = 150) -> list[np.ndarray]:
    """Originals, copies of all similarities, copies of copies, documents below and at the width."""
    generator = np.random.default_rng(seed)
    documents = [generator.integers(0, 50_000, generator.integers(30, 200)) for _ in range(originals)]
    for _ in range(originals):
        share = generator.choice([0.0, 0.005, 0.02, 0.06, 0.2])
        documents.append(mutated(documents[generator.integers(len(documents))], share, generator))
    return documents + small_corpus(seed)[60:]


@pytest.mark.parametrize("threshold", (0.3, 0.5, 0.7, 0.8, 0.9, 1.0))
def test_clusters_equal_those_in_memory(cluster, threshold):
    documents = planted_corpus(0)

    labels = cluster(documents, threshold=threshold)

    in_memory = near_duplicate_clusters(documents, width=WIDTH, threshold=threshold, seed=1)
    assert labels.dtype == np.int64
    assert np.array_equal(labels, in_memory)
    assert len(partition(labels)) < len(documents) - 10


def test_clusters_equal_all_pairs_compared(cluster):
    documents = small_corpus(1)

    labels = cluster(documents, threshold=0.5)

    assert labels.tolist() == reference.clusters(documents, WIDTH, 0.5)


def test_bytes_do_not_depend_on_datasets_or_parts(cluster, tmp_path, monkeypatch):
    documents = planted_corpus(2)
    cluster(documents, threshold=0.6, folder="whole")
    monkeypatch.setattr("megasbp.overlap.corpus_clusters.parts_for", lambda documents, memory: 3)

    cluster(documents, threshold=0.6, folder="parts", bounds=(0, 50, 51, 200))

    whole, parts = (tmp_path / name / "clusters" / "clusters.npy" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    assert len(list((tmp_path / "parts" / "candidates").iterdir())) == 3 * (128 // rows_per_band(0.6))


@pytest.mark.parametrize("threshold", (0.5, 0.7, 0.8))
def test_planted_near_duplicates_at_the_threshold_are_found(cluster, threshold):
    generator = np.random.default_rng(4)
    pairs = []
    while len(pairs) < 300:
        original = generator.integers(0, 50_000, 150)
        copy = mutated(original, generator.uniform(0.01, 0.12), generator)
        # Just above the threshold is where bands and the estimate miss most.
        if threshold <= reference.jaccard(original, copy, WIDTH) <= threshold + 0.1:
            pairs.append((original, copy))

    labels = cluster([document for pair in pairs for document in pair], threshold=threshold)

    # 0.979 is promised for each pair; 0.94 is 4.5 standard deviations of 300 draws below.
    assert np.mean(labels[0::2] == labels[1::2]) >= 0.94


def test_documents_below_the_threshold_are_never_joined(cluster):
    generator = np.random.default_rng(5)
    original = generator.integers(0, 50_000, 150)
    documents = [mutated(original, 0.08, generator) for _ in range(100)]

    labels = cluster(documents, threshold=0.7)

    assert labels.tolist() == reference.clusters(documents, WIDTH, 0.7)
    assert len(partition(labels)) > 50


def test_copies_of_one_page_give_two_candidates_each_in_one_band_only(cluster, tmp_path):
    copies = 5000

    labels = cluster([np.arange(60)] * copies, threshold=0.7)

    assert not labels.any()
    counts = [len(load_pairs(folder)) for folder in sorted((tmp_path / "run" / "candidates").iterdir())]
    assert counts == [2 * copies - 3] + [0] * (len(counts) - 1)


def test_candidates_of_boilerplate_grow_linearly(write_shards, tmp_path):
    # 1,000 variants of one page have 499,500 pairs. Each has an ending of its own: similar enough to share
    # many keys, not enough to count as joined.
    generator = np.random.default_rng(6)
    page = generator.integers(0, 50_000, 120)
    documents = [np.concatenate([page, generator.integers(0, 50_000, 15)]) for _ in range(1000)]
    (tmp_path / "signatures").mkdir()
    (tmp_path / "candidates").mkdir()
    settings = {"width": WIDTH, "threshold": 0.8, "seed": 1}
    write_signatures(0, tmp_path / "signatures", datasets=write_shards(documents), **settings)

    facts = write_candidates(0, tmp_path / "candidates", signatures=[tmp_path / "signatures"], parts=1)

    assert facts["largest_group"] > 100
    assert 0 < facts["candidates"] <= 9 * 1000


def test_boilerplate_is_one_cluster(cluster):
    generator = np.random.default_rng(7)
    page = generator.integers(0, 50_000, 120)
    documents = [np.concatenate([page, generator.integers(0, 50_000, 8)]) for _ in range(400)]

    labels = cluster(documents, threshold=0.8)

    assert not labels.any()


def test_empty_documents_stay_alone_and_short_ones_join_their_equals(cluster):
    documents = [[], [1], [], [1], [1, 2], [2], [1, 2]]

    labels = cluster(documents, threshold=0.7)

    assert labels.tolist() == [0, 1, 2, 1, 4, 5, 4]


def test_shards_without_documents_are_allowed(cluster):
    assert cluster([], threshold=0.7, bounds=(0,)).shape == (0,)


def test_clusters_equal_those_of_datasketch(cluster):
    datasketch = pytest.importorskip("datasketch", reason="the oracle: pip install datasketch (extra dev)")
    documents = planted_corpus(8)
    threshold, rows = 0.7, rows_per_band(0.7)
    index = datasketch.MinHashLSH(num_perm=128, params=(128 // rows, rows))
    union = core.UnionFind(len(documents))

    for i, document in enumerate(documents):
        runs = reference.shingle_set(document, WIDTH)
        if not runs:
            continue
        minhash = datasketch.MinHash(num_perm=128, seed=1)
        minhash.update_batch([np.asarray(run, np.int64).tobytes() for run in runs])
        for other in index.query(minhash):
            if reference.jaccard(document, documents[other], WIDTH) >= threshold:
                union.join(np.array([[other, i]]))
        index.insert(i, minhash)

    assert np.array_equal(cluster(documents, threshold=threshold), union.take_labels())


def test_slots_for_a_threshold_of_one_are_all():
    assert agreeing_slots(1.0) == (128, 128)


def test_parts_follow_from_the_memory():
    assert parts_for(600_000_000, 4 << 30) == 3
    assert parts_for(0, 1 << 20) == 1
    with pytest.raises(InputError, match="memory 1000: must be at least"):
        parts_for(10, 1000)


def test_document_numbers_run_on_over_shards(write_shards):
    documents = [[i, i + 1] for i in range(10)]

    shards = DatasetShards(write_shards(documents, bounds=(0, 3, 3, 9)))

    assert [shards.document(i).tolist() for i in range(len(shards))] == documents
    for outside in (-1, 10):
        with pytest.raises(IndexError, match="of 10"):
            shards.document(outside)


def test_shards_of_different_tokenizers_are_refused(write_shards):
    shards = [*write_shards([[1]], name="a", bos=1), *write_shards([[1]], name="b", bos=2)]

    with pytest.raises(InputError, match=r"b-0\.json: bos is 2"):
        DatasetShards(shards)


def test_no_shards_are_refused():
    with pytest.raises(InputError, match="no dataset shards"):
        DatasetShards([])


def saved_pairs(folder: Path, pairs) -> Path:
    folder.mkdir()
    with ArrayFile(folder / "pairs.npy") as file:
        file.append(np.asarray(pairs, np.int64).reshape(-1))
    return folder


def test_labels_do_not_depend_on_how_pairs_are_laid_out(tmp_path):
    pairs = np.random.default_rng(9).integers(0, 500, (400, 2))
    one = saved_pairs(tmp_path / "one", pairs)
    two = [saved_pairs(tmp_path / "a", pairs[200:]), saved_pairs(tmp_path / "b", pairs[:200, ::-1])]
    for name, folders in (("labels-1", [one]), ("labels-2", two)):
        (tmp_path / name).mkdir()
        write_clusters(500, tmp_path / name, pairs=folders)

    first, second = (tmp_path / name / "clusters.npy" for name in ("labels-1", "labels-2"))
    assert first.read_bytes() == second.read_bytes()
    assert len(set(np.load(first).tolist())) < 200


def test_a_pair_outside_the_corpus_is_named(tmp_path):
    folder = saved_pairs(tmp_path / "pairs", [[0, 7]])

    with pytest.raises(InputError, match="pairs: document 7 of 5"):
        write_clusters(5, tmp_path, pairs=[folder])


@pytest.mark.parametrize("damage", ("truncated", "odd", "missing"))
def test_a_damaged_pair_file_is_named(write_shards, tmp_path, damage):
    folder = saved_pairs(tmp_path / "pairs", [[0, 1], [1, 2]])
    path = folder / "pairs.npy"
    if damage == "missing":
        path.unlink()
    elif damage == "odd":
        np.save(path, np.arange(3))
    else:
        path.write_bytes(path.read_bytes()[:-4])

    with pytest.raises(InputError, match=r"pairs/pairs\.npy: .*make this folder again"):
        write_verified(
            0,
            tmp_path,
            parts=1,
            datasets=write_shards([[1], [2], [3]]),
            candidates=[folder],
            width=WIDTH,
            threshold=0.7,
        )


def test_ranges_of_the_comparison_leave_no_pair_out(write_shards, tmp_path):
    documents = [np.arange(20)] * 10
    candidates = [saved_pairs(tmp_path / "candidates", [[i, i + 1] for i in range(9)])]
    datasets = write_shards(documents)
    kept = []

    for part in range(4):
        (tmp_path / str(part)).mkdir()
        settings = {"datasets": datasets, "candidates": candidates, "width": WIDTH, "threshold": 0.7}
        write_verified(part, tmp_path / str(part), parts=4, **settings)
        kept += load_pairs(tmp_path / str(part)).tolist()

    assert kept == [[i, i + 1] for i in range(9)]
