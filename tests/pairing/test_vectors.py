"""Several files as one matrix: the same rows, whatever is asked for; files that do not fit are named."""

import os
from pathlib import Path

import numpy as np
import pytest

from megasbp.errors import InputError
from megasbp.pairing.similarity import similarities
from megasbp.pairing.vectors import Vectors, load_array


@pytest.fixture
def matrix() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


def cut(folder: Path, matrix: np.ndarray, places: list[int]) -> Vectors:
    paths = []
    for number, part in enumerate(np.split(matrix, places)):
        paths.append(folder / f"{number}-of-{len(places)}.npy")
        np.save(paths[-1], part)
    return Vectors(paths)


def test_slices_and_rows_are_those_of_the_whole(tmp_path: Path, matrix: np.ndarray) -> None:
    vectors = cut(tmp_path, matrix, [3, 3, 11])
    assert vectors.shape == (20, 3) and len(vectors) == 20
    for start in range(21):
        for stop in range(start, 21):
            assert (vectors[start:stop] == matrix[start:stop]).all()
            assert vectors[start:stop].shape == (stop - start, 3)
    rows = np.array([19, 0, 2, 3, 10, 11, 0])
    assert (vectors[rows] == matrix[rows]).all()


def test_similarities_are_those_of_the_whole(tmp_path: Path, matrix: np.ndarray) -> None:
    vectors = cut(tmp_path, matrix, [3, 3, 11])
    one, other = np.divmod(np.random.default_rng(1).permutation(400), 20)
    expected = similarities(matrix, matrix, one, other)
    assert (similarities(vectors, vectors, one, other) == expected).all()
    assert (similarities(matrix, vectors, one, other) == expected).all()
    assert len(similarities(vectors, vectors, one[:0], other[:0])) == 0


def test_rows_outside_are_refused(tmp_path: Path, matrix: np.ndarray) -> None:
    vectors = cut(tmp_path, matrix, [3])
    for row in (-1, 20):
        with pytest.raises(IndexError, match="not all inside"):
            vectors[np.array([row])]


def test_the_digest_is_that_of_the_files_unless_it_is_known(tmp_path: Path, matrix: np.ndarray) -> None:
    vectors = cut(tmp_path, matrix, [3])
    assert vectors.digest == Vectors(vectors.paths).digest
    assert vectors.digest != Vectors(vectors.paths[::-1]).digest
    assert Vectors(vectors.paths, digest="known").digest == "known"


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 4), np.float32), "other.npy: 4 wide, .* is 3"),
        (np.zeros((2, 3)), r"other.npy: float64 \(2, 3\), must be a float32 matrix"),
        (np.zeros(3, np.float32), r"other.npy: float32 \(3,\), must be a float32 matrix"),
        (np.zeros((3, 2), np.float32).T, "must be a float32 matrix stored by rows"),
    ],
)
def test_files_that_do_not_fit_are_named(
    tmp_path: Path, matrix: np.ndarray, array: np.ndarray, said: str
) -> None:
    np.save(tmp_path / "one.npy", matrix)
    np.save(tmp_path / "other.npy", array)
    with pytest.raises(InputError, match=said):
        Vectors([tmp_path / "one.npy", tmp_path / "other.npy"])


@pytest.mark.parametrize("shape", [(7, 3), (0, 3), (5,), ()])
@pytest.mark.parametrize("dtype", [np.float16, np.int64])
def test_a_map_is_the_array_and_keeps_no_descriptor(
    tmp_path: Path, shape: tuple[int, ...], dtype: type
) -> None:
    array = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    np.save(tmp_path / "a.npy", array)
    np.save(tmp_path / "turned.npy", array.T)
    before = os.listdir("/proc/self/fd")
    found, turned = load_array(tmp_path / "a.npy"), load_array(tmp_path / "turned.npy")
    assert os.listdir("/proc/self/fd") == before
    assert found.dtype == dtype and not found.flags.writeable
    assert found.flags.c_contiguous and found.flags.aligned
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(turned, array.T)


def test_a_map_outlives_its_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5))
    part = load_array(tmp_path / "a.npy")[2:]
    (tmp_path / "a.npy").unlink()
    assert part.tolist() == [2, 3, 4]


def test_what_cannot_be_mapped_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "cut.npy", np.arange(9))
    os.truncate(tmp_path / "cut.npy", 190)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "empty.npy").touch()
    for name in ("cut", "objects", "empty"):
        with pytest.raises(InputError, match=rf"{name}\.npy: not an array \(.+\); have it made again"):
            load_array(tmp_path / f"{name}.npy")
    with pytest.raises(FileNotFoundError, match=r"none\.npy"):
        load_array(tmp_path / "none.npy")


def test_a_missing_and_a_broken_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.npy: no such file"):
        Vectors([tmp_path / "none.npy"])
    (tmp_path / "broken.npy").write_bytes(b"half")
    with pytest.raises(InputError, match=r"broken\.npy: not an array"):
        Vectors([tmp_path / "broken.npy"])
