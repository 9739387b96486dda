"""The pair table on disk, made here or elsewhere."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from megasbp.errors import InputError
from megasbp.pairing.table import PAIR_SCHEMA, pair_table, read_pairs, write_pairs


def example() -> pa.Table:
    return pair_table(
        np.array([0, 2]),
        np.array([1, 0]),
        np.array([0.5, 0.75]),
        np.array([0, 0.25]),
        np.array([0, 3]),
        "test",
    )


def write_foreign(folder: Path, **columns: list) -> Path:
    pq.write_table(pa.table(columns), folder / "pairs.parquet")
    return folder / "pairs.parquet"


def test_a_table_survives_the_disk_and_equal_tables_are_equal_bytes(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.parquet", example())
    write_pairs(tmp_path / "b.parquet", example())
    assert read_pairs(tmp_path / "a.parquet").equals(example())
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_bare_list_of_pairs_is_a_pair_source(tmp_path: Path) -> None:
    path = write_foreign(tmp_path, link=["a"], target_doc=[1], seed_doc=[0])
    table = read_pairs(path, seed_count=1, target_count=2)
    assert table.schema.equals(PAIR_SCHEMA)
    row = table.to_pylist()[0]
    assert np.isnan(row["similarity"]) and np.isnan(row["jaccard"])
    assert (row["seed_doc"], row["target_doc"], row["rank"], row["source"]) == (0, 1, -1, "")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"seed_doc": [0]}, "target_doc missing"),
        ({"title": ["x"]}, "seed_doc and target_doc missing"),
        ({"seed_doc": ["0"], "target_doc": [1]}, "seed_doc is string, must be integers"),
        ({"seed_doc": [0.5], "target_doc": [1]}, "seed_doc is double, must be integers"),
        ({"seed_doc": [0, None], "target_doc": [1, 1]}, "seed_doc has 1 empty cells"),
        ({"seed_doc": [-1], "target_doc": [1]}, "seed_doc -1 is no document"),
        ({"seed_doc": [5], "target_doc": [1]}, "seed_doc 5 is no document of its dataset, must be in 0..4"),
        ({"seed_doc": [0], "target_doc": [9]}, "target_doc 9 is no document of its dataset, must be in 0..8"),
        ({"seed_doc": [0], "target_doc": [1], "similarity": ["high"]}, "similarity is string, must be float"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(tmp_path: Path, columns: dict, message: str) -> None:
    path = write_foreign(tmp_path, **columns)
    with pytest.raises(InputError, match=message):
        read_pairs(path, seed_count=5, target_count=9)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.parquet").write_text("seed_doc,target_doc\n0,1\n")
    with pytest.raises(InputError, match=r"pairs\.parquet: not a readable Parquet file"):
        read_pairs(tmp_path / "pairs.parquet")
    with pytest.raises(InputError, match="no such file"):
        read_pairs(tmp_path / "other.parquet")


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    write_pairs(tmp_path / "empty.parquet", example().slice(0, 0))
    assert read_pairs(tmp_path / "empty.parquet", seed_count=0, target_count=0).num_rows == 0
