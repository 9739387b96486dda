"""Files of pairs made elsewhere, ready lists and link graphs, read a piece at a time.

A ready list names seeds and targets in one of two ways:
- columns `seed` and `target`: ids of documents, as the corpus has them (`corpus.id_field`);
- columns `seed_doc` and `target_doc`: numbers of units in the run's unique dataset, as a pair table has them.
A link graph has columns `source` and `target`, ids of documents: the source links to the target.

Kinds by suffix: .parquet; .jsonl or .ndjson, one object per line; for links also .tsv, two columns without a
header. All but Parquet also as .gz or .zst. A column `similarity` is not read: nothing is known of how it was
measured.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from megasbp.corpus.lines import STREAM_ERRORS, open_lines
from megasbp.errors import InputError

EdgeKind = Literal["list", "links"]
# The pairs of column names that a file may have; the first pair that is there is read.
_COLUMNS: dict[EdgeKind, tuple[tuple[str, str], ...]] = {
    "list": (("seed", "target"), ("seed_doc", "target_doc")),
    "links": (("source", "target"),),
}
NUMBERS = ("seed_doc", "target_doc")
_ROWS_AT_ONCE = 1 << 20
_BYTES_AT_ONCE = 1 << 25


def read_edges(path: Path, kind: EdgeKind) -> Iterator[pa.RecordBatch]:
    """Yields the two columns of a file of pairs, in order, in batches of bounded size.

    Returns:
        Batches named as in the file (see the module): large_string ids, null where a cell is empty, or
        int64 numbers (`NUMBERS`), -1 where a cell is empty.

    Raises:
        InputError: the file is missing, damaged, of an unknown kind, or has not the columns.
    """
    path = Path(path)
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    try:
        if path.name.lower().endswith(".parquet"):
            pieces = _parquet(path, kind)
        elif name.endswith((".jsonl", ".ndjson")):
            pieces = _json_lines(path, kind)
        elif name.endswith(".tsv") and kind == "links":
            pieces = _tab_separated(path)
        else:
            kinds = ".parquet, .jsonl, .ndjson" + (", .tsv" if kind == "links" else "")
            raise InputError(f"{path}: unknown kind of file; pairing.path may be {kinds}")
        for columns, first, second in pieces:
            convert = _numbers if columns == NUMBERS else _ids
            arrays = [
                convert(array, name, path) for array, name in zip((first, second), columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=list(columns))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; correct pairing.path") from None
    except (OSError, pa.ArrowException, *STREAM_ERRORS) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}); write it again") from None


_Piece = tuple[tuple[str, str], pa.Array, pa.Array]


def _parquet(path: Path, kind: EdgeKind) -> Iterator[_Piece]:
    with pq.ParquetFile(path) as file:
        columns = _chosen(file.schema_arrow.names, kind, path)
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
            yield columns, batch[columns[0]], batch[columns[1]]


def _json_lines(path: Path, kind: EdgeKind) -> Iterator[_Piece]:
    columns: tuple[str, str] | None = None
    with open_lines(path) as stream:
        for block in _blocks(stream):
            table = pyarrow.json.read_json(
                io.BytesIO(block), read_options=pyarrow.json.ReadOptions(block_size=len(block) + 1)
            ).combine_chunks()
            columns = columns or _chosen(table.column_names, kind, path)
            missing = [name for name in columns if name not in table.column_names]
            if missing:
                raise InputError(f"{path}: no {' and '.join(missing)} in some of its lines; complete them")
            for batch in table.select(columns).to_batches(_ROWS_AT_ONCE):
                yield columns, batch[columns[0]], batch[columns[1]]


def _tab_separated(path: Path) -> Iterator[_Piece]:
    with open_lines(path) as stream:
        for block in _blocks(stream):
            table = pyarrow.csv.read_csv(
                io.BytesIO(block),
                read_options=pyarrow.csv.ReadOptions(column_names=["source", "target"]),
                parse_options=pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types={"source": pa.string(), "target": pa.string()}
                ),
            )
            for batch in table.to_batches(_ROWS_AT_ONCE):
                yield ("source", "target"), batch["source"], batch["target"]


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Whole lines, about `_BYTES_AT_ONCE` at a time; none that are blank."""
    while block := stream.read(_BYTES_AT_ONCE):
        block += stream.readline()
        if block.strip():
            yield block


def _chosen(names: list[str], kind: EdgeKind, path: Path) -> tuple[str, str]:
    for columns in _COLUMNS[kind]:
        if set(columns) <= set(names):
            return columns
    wanted = " or ".join(" and ".join(columns) for columns in _COLUMNS[kind])
    raise InputError(f"{path}: needs columns {wanted}, has {', '.join(names) or 'none'}")


def _ids(array: pa.Array, name: str, path: Path) -> pa.Array:
    """Ids as the corpus has them: an integer id is its decimal digits there too."""
    kind = array.type
    known = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_null)
    if not any(is_kind(kind) for is_kind in known):
        raise InputError(f"{path}: column {name} is {kind}, must be strings or integers")
    return array.cast(pa.large_string())


def _numbers(array: pa.Array, name: str, path: Path) -> pa.Array:
    if not (pa.types.is_integer(array.type) or pa.types.is_null(array.type)):
        raise InputError(f"{path}: column {name} is {array.type}, must be integers (ids: seed, target)")
    return pc.fill_null(array.cast(pa.int64()), -1)
