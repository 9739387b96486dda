"""Documents by id: found, not found, and ids that are not unique."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pytest

from megasbp.errors import InputError
from megasbp.pairing.document_index import DocumentIndex, id_keys, split_numbers


def ids(values: list[str | None]) -> pa.Array:
    return pa.array(values, pa.large_string())


def reading(*parts: list[str]) -> Callable[[], Iterator[pa.Array]]:
    return lambda: (ids(part) for part in parts)


def test_documents_are_found_by_id_across_batches() -> None:
    index = DocumentIndex(reading(["b", "", "wikipedia-lead-00001"], ["a", "ab", "é" * 9]))
    assert len(index) == 6
    assert index.find(ids(["é" * 9, "a", "wikipedia-lead-00001", "b", "ab"])).tolist() == [5, 3, 2, 0, 4]


def test_unknown_and_empty_ids_are_nowhere() -> None:
    index = DocumentIndex(reading(["", "a"]))
    assert index.find(ids(["b", None, "a", "", None])).tolist() == [-1, -1, 1, 0, -1]
    assert index.find(ids([])).tolist() == []
    assert DocumentIndex(reading()).find(ids(["a"])).tolist() == [-1]


def test_a_slice_of_a_batch_is_its_rows() -> None:
    whole = ids(["one", "two", "three", "four"])
    np.testing.assert_array_equal(id_keys(whole.slice(1, 2)), id_keys(whole)[1:3])
    assert (
        id_keys(whole.slice(1, 2).cast(pa.large_string())).tolist() == id_keys(ids(["two", "three"])).tolist()
    )


def test_many_alike_ids_have_different_keys() -> None:
    numbered = [f"shard-{number // 1000:05d}/{number % 1000}" for number in range(50_000)]
    # Also ids that differ only in trailing zero bytes, which fill the last eight bytes alike.
    zeros = ["x" + "\0" * length for length in range(20)]
    assert len(np.unique(id_keys(ids(numbered + zeros)))) == 50_020


def test_ids_that_occur_twice_are_named() -> None:
    with pytest.raises(
        InputError, match=r"2 documents whose id another one has, such as 'a' \(3 times\); .*rename"
    ):
        DocumentIndex(reading(["a", "b"], ["a", "c", "a"]))


def test_ids_with_one_key_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megasbp.pairing.document_index.id_keys", lambda part: np.zeros(len(part), np.uint64))
    with pytest.raises(InputError, match="'a' and 'b' have the same 64-bit key"):
        DocumentIndex(reading(["a"], ["b"]))


def test_numbers_count_within_a_split_in_reading_order() -> None:
    assert split_numbers(np.array([1, 3, 1, 0, 3, 1], np.int8)).tolist() == [0, 0, 1, 0, 1, 2]
