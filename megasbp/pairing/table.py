"""The pair table: one row per pair, in Parquet. Any list of this form is a source of pairs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from megasbp.errors import InputError
from megasbp.storage import publishing_file

# similarity and jaccard are NaN, rank is -1 and source is "" where they are not known.
PAIR_SCHEMA = pa.schema(
    [
        pa.field("seed_doc", pa.int64(), nullable=False),
        pa.field("target_doc", pa.int64(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
        pa.field("jaccard", pa.float32(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)
_REQUIRED = ("seed_doc", "target_doc")
_DEFAULTS = {"similarity": float("nan"), "jaccard": float("nan"), "rank": -1, "source": ""}


def pair_table(
    seed_documents: np.ndarray,
    target_documents: np.ndarray,
    similarity: np.ndarray,
    jaccard: np.ndarray,
    rank: np.ndarray,
    source: str,
) -> pa.Table:
    """A pair table from columns of equal length n.

    Args:
        seed_documents, target_documents: integers [n], ids in the seeds' and in the targets' dataset.
        similarity, jaccard: floats [n].
        rank: integers [n], place in the query's list of neighbours, 0 is the nearest.
        source: where the pairs come from, the same for all.
    """
    columns = [seed_documents, target_documents, similarity, jaccard, rank]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, PAIR_SCHEMA, strict=False)]
    return pa.Table.from_arrays([*arrays, pa.repeat(source, len(seed_documents))], schema=PAIR_SCHEMA)


def write_pairs(path: Path, table: pa.Table) -> None:
    """Publishes a pair table as a Parquet file; equal tables are equal bytes.

    Raises:
        InputError: the table has not the columns of `PAIR_SCHEMA`.
    """
    checked = _conform(table, str(path))
    with publishing_file(Path(path)) as partial:
        pq.write_table(checked, partial)


def read_pairs(path: Path, *, seed_count: int | None = None, target_count: int | None = None) -> pa.Table:
    """Reads a pair table, made here or elsewhere.

    Args:
        path: a Parquet file with at least the integer columns seed_doc and target_doc. Other columns of
            `PAIR_SCHEMA` are filled when absent, columns beyond it are dropped.
        seed_count, target_count: documents in the two datasets; None leaves the upper bound unchecked.

    Returns:
        A table of exactly `PAIR_SCHEMA`.

    Raises:
        InputError: the file is missing or no Parquet, a required column is missing, a column has another type
            or empty cells, or a document id lies outside its dataset.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a Parquet file of pairs") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
    table = _conform(table, str(path))
    for name, count in zip(_REQUIRED, (seed_count, target_count), strict=True):
        _check_range(table[name], name, count, str(path))
    return table


def _conform(table: pa.Table, place: str) -> pa.Table:
    missing = [name for name in _REQUIRED if name not in table.column_names]
    if missing:
        raise InputError(
            f"{place}: column {' and '.join(missing)} missing; a pair table needs seed_doc and target_doc, "
            f"this one has {', '.join(table.column_names) or 'none'}"
        )
    columns = []
    for field in PAIR_SCHEMA:
        if field.name not in table.column_names:
            columns.append(pa.repeat(pa.scalar(_DEFAULTS[field.name], field.type), table.num_rows))
            continue
        column = table[field.name]
        if column.null_count:
            raise InputError(f"{place}: column {field.name} has {column.null_count} empty cells; fill them")
        if pa.types.is_integer(field.type) and not pa.types.is_integer(column.type):
            raise InputError(f"{place}: column {field.name} is {column.type}, must be integers")
        try:
            columns.append(column.cast(field.type))
        # A value that does not fit, or a kind of column that Arrow casts to no such type.
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise InputError(f"{place}: column {field.name} is {column.type}, must be {field.type}") from None
    return pa.table(columns, schema=PAIR_SCHEMA)


def _check_range(column: pa.ChunkedArray, name: str, count: int | None, place: str) -> None:
    if len(column) == 0:
        return
    bounds = pc.min_max(column).as_py()
    lowest, highest = bounds["min"], bounds["max"]
    if lowest < 0 or (count is not None and highest >= count):
        offending = lowest if lowest < 0 else highest
        allowed = "at least 0" if count is None else f"in 0..{count - 1}"
        raise InputError(
            f"{place}: {name} {offending} is no document of its dataset, must be {allowed}; "
            "make the pairs with the same dataset"
        )
