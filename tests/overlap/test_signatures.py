import errno
import json

import numpy as np
import overlap_reference as reference
import pytest

import megasbp._C as core
from megasbp.addressing import derive_key
from megasbp.errors import InputError
from megasbp.overlap.clusters import rows_per_band
from megasbp.overlap.signatures import Signatures, open_all, write_signatures

SETTINGS = {"width": 5, "threshold": 0.7, "seed": 3}


@pytest.fixture
def signatures_of(write_shards, tmp_path):
    def signatures(documents, folder="signatures", dataset=None, **settings) -> Signatures:
        (tmp_path / folder).mkdir(exist_ok=True)
        datasets = write_shards(documents, **(dataset or {}))
        write_signatures(0, tmp_path / folder, datasets=datasets, **(SETTINGS | settings))
        return Signatures.open(tmp_path / folder)

    return signatures


def pairs_of_sets(shared: int, first: int, second: int, count: int) -> list[np.ndarray]:
    """Pairs of single-token sets with `shared` tokens in both, `first` and `second` in one only."""
    generator = np.random.default_rng(shared + first + second)
    documents = []
    for _ in range(count):
        both, one, other = np.split(
            generator.choice(2**31 - 1, shared + first + second, replace=False), [shared, shared + first]
        )
        documents += [np.concatenate([both, one]), np.concatenate([both, other])]
    return documents


@pytest.mark.parametrize(
    "shared, first, second",
    # From sets of one token, where late rounds and the slots' own hashes decide, to sets of 475; similarities
    # of 0.11 to 0.9.
    ((1, 0, 1), (5, 20, 20), (30, 35, 35), (90, 45, 45), (70, 0, 30), (300, 100, 100), (450, 25, 25)),
)
def test_slots_agree_as_often_as_the_sets_overlap(signatures_of, shared, first, second):
    count = 400
    similarity = shared / (shared + first + second)

    slots = signatures_of(pairs_of_sets(shared, first, second, count), width=1).slots
    agreeing = (slots[0::2] == slots[1::2]).sum(1)

    probability = similarity + (1 - similarity) / 256
    variance = 128 * probability * (1 - probability)
    # Unbiased: the mean of 400 pairs lies within 4.5 standard errors.
    assert abs(agreeing.mean() - 128 * probability) < 4.5 * np.sqrt(variance / count)
    # No more spread than 128 independent draws: a mean of 400 squares has a standard error of 0.07.
    assert ((agreeing - 128 * probability) ** 2).mean() < 1.35 * variance


def test_band_keys_agree_with_the_probability_of_all_their_rows(signatures_of):
    keys = signatures_of(pairs_of_sets(90, 15, 15, 400), width=1).keys

    expected = 0.75 ** rows_per_band(SETTINGS["threshold"])
    # Bands of one pair are independent enough; 400 * 25 of them, 4.5 standard errors.
    error = np.sqrt(expected * (1 - expected) / keys[:, 0::2].size)
    assert abs((keys[:, 0::2] == keys[:, 1::2]).mean() - expected) < 4.5 * error


def test_signatures_are_those_of_the_definition(signatures_of):
    generator = np.random.default_rng(1)
    documents = [generator.integers(0, 100, length) for length in (1, 4, 5, 9, 60)]
    documents.append(np.tile(documents[-1], 3))

    signatures = signatures_of(documents)

    key = derive_key(SETTINGS["seed"], "minhash signature")
    for i, document in enumerate(documents):
        slots = reference.signature_slots(document, SETTINGS["width"], key)
        assert signatures.slots[i].tolist() == [slot >> 56 for slot in slots]
        assert signatures.keys[:, i].tolist() == reference.band_keys(
            slots, rows_per_band(SETTINGS["threshold"])
        )


def test_bytes_do_not_depend_on_threads_or_blocks(signatures_of, tmp_path, monkeypatch):
    generator = np.random.default_rng(2)
    documents = [generator.integers(0, 2**31 - 1, length) for length in generator.integers(0, 60, 1000)]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    signatures_of(documents, "one")
    monkeypatch.setattr("megasbp.overlap.signatures._DOCUMENTS_AT_ONCE", 333)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    signatures_of(documents, "many")

    for name in ("keys.npy", "slots.npy", "signatures.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_separators_are_left_out(signatures_of):
    bare = [[5, 6, 7, 8, 9, 10], [5], []]
    stored = [[1, *document, 2] for document in bare]

    plain = signatures_of(bare, "bare")
    separated = signatures_of(stored, "stored", {"name": "stored", "bos": 1, "eos": 2})

    assert np.array_equal(plain.keys, separated.keys)
    assert np.array_equal(plain.slots, separated.slots)
    assert (plain.keys[:, 2] == core.EMPTY_DOCUMENT).all()
    assert (plain.keys[:, :2] != core.EMPTY_DOCUMENT).all()


@pytest.mark.parametrize("dtype", (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64))
def test_every_token_type_gives_the_same_signature(signatures_of, dtype):
    document = [np.arange(100)]

    signatures = signatures_of(document, dataset={"dtype": dtype})

    assert np.array_equal(signatures.slots, signatures_of(document, "other").slots)


def test_a_token_out_of_range_is_named(signatures_of):
    with pytest.raises(InputError, match=r"data-0: document 1 holds a token outside \[0, 2\^32\)"):
        signatures_of([[1, 2], [3, 2**32]], dataset={"dtype": np.int64})


def test_no_documents_give_no_signatures(signatures_of):
    signatures = signatures_of([])

    assert signatures.keys.shape == (25, 0)
    assert signatures.slots.shape == (0, 128)


@pytest.mark.parametrize("name", ("keys.npy", "slots.npy"))
@pytest.mark.parametrize("damage", ("truncated", "cut in the header", "other dtype", "missing"))
def test_a_damaged_file_is_named(signatures_of, tmp_path, name, damage):
    signatures_of([np.arange(20)] * 10)
    path = tmp_path / "signatures" / name
    if damage == "missing":
        path.unlink()
    elif damage == "other dtype":
        np.save(path, np.load(path).astype(np.float32))
    else:
        path.write_bytes(path.read_bytes()[: -1 if damage == "truncated" else 20])

    with pytest.raises(InputError, match=f"{name}: .*make the shard's signatures again"):
        Signatures.open(tmp_path / "signatures")


def test_damaged_settings_are_named(signatures_of, tmp_path):
    signatures_of([np.arange(20)])
    (tmp_path / "signatures" / "signatures.json").write_text(json.dumps({"width": 5}))

    with pytest.raises(InputError, match=r"signatures\.json: describes no signatures"):
        Signatures.open(tmp_path / "signatures")


def test_signatures_of_different_settings_are_not_mixed(signatures_of, tmp_path):
    signatures_of([np.arange(20)], "a")
    signatures_of([np.arange(20)], "b", seed=4)

    with pytest.raises(InputError, match="b: made with .*'seed': 4"):
        open_all([tmp_path / "a", tmp_path / "b"])


@pytest.mark.parametrize("name", ("keys.npy", "slots.npy"))
def test_a_full_disk_is_named(signatures_of, tmp_path, name):
    (tmp_path / "signatures").mkdir()
    (tmp_path / "signatures" / name).symlink_to("/dev/full")

    with pytest.raises(OSError) as caught:
        signatures_of([np.arange(20)] * 200)

    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value.filename).endswith(name)
