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
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

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
# What a cell of JSON may be that it must not be.
_KINDS = {
    str: "string",
    int: "integer beyond 64 bits",
    float: "fraction",
    bool: "boolean",
    list: "list",
    dict: "object",
}
_CHARACTERS_SHOWN = 40


def read_edges(path: Path, kind: EdgeKind) -> Iterator[pa.RecordBatch]:
    """Yields the two columns of a file of pairs, in order, in batches of bounded size.

    Returns:
        Batches named as in the file (see the module): large_string ids, null where a cell is empty, or
        int64 numbers (`NUMBERS`), -1 where a cell is empty.

    Raises:
        InputError: the file is missing, damaged, of an unknown kind, or has not the columns. A damaged line
            of JSON is named by its number.
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
# Numbers of lines, and what each holds.
_Objects = Iterator[tuple[int, dict[str, Any]]]


def _parquet(path: Path, kind: EdgeKind) -> Iterator[_Piece]:
    with pq.ParquetFile(path) as file:
        columns = _chosen(file.schema_arrow.names, kind, path)
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
            yield columns, batch[columns[0]], batch[columns[1]]


def _json_lines(path: Path, kind: EdgeKind) -> Iterator[_Piece]:
    columns: tuple[str, str] | None = None
    with open_lines(path) as stream:
        for first_line, block in _blocks(stream):
            columns = columns or _named_columns(_objects(block, first_line, path), kind, path)
            table = _typed_table(block, columns)
            if table is None:
                table = _checked_table(_objects(block, first_line, path), columns, path)
            empty = {name for name in columns if table[name].null_count == len(table)}
            if empty:
                _require(empty, _objects(block, first_line, path), path)
            for batch in table.combine_chunks().to_batches(_ROWS_AT_ONCE):
                yield columns, batch[columns[0]], batch[columns[1]]


def _named_columns(objects: _Objects, kind: EdgeKind, path: Path) -> tuple[str, str]:
    """The pair of columns that some lines name; reads no more of them than that takes."""
    names: dict[str, None] = {}
    for _, cells in objects:
        names |= dict.fromkeys(cells)
        if any(names.keys() >= set(columns) for columns in _COLUMNS[kind]):
            break
    return _chosen(list(names), kind, path)


def _require(names: set[str], objects: _Objects, path: Path) -> None:
    """Checks that some line names each of these columns, if only with null."""
    for _, cells in objects:
        names = names - cells.keys()
        if not names:
            return
    missing = " and ".join(sorted(names))
    raise InputError(f"{path}: no {missing} in some of its lines; complete them")


def _typed_table(block: bytes, columns: tuple[str, str]) -> pa.Table | None:
    """Two columns of whole lines, each all strings or all integers; None where Arrow finds anything else."""
    types = (pa.int64(),) if columns == NUMBERS else (pa.string(), pa.int64())
    for pair in itertools.product(types, repeat=2):
        # What has no type is guessed: dates become times, and columns that nobody reads must be of one type.
        options = pyarrow.json.ParseOptions(
            explicit_schema=pa.schema(list(zip(columns, pair, strict=True))),
            unexpected_field_behavior="ignore",
        )
        try:
            return pyarrow.json.read_json(
                io.BytesIO(block), pyarrow.json.ReadOptions(block_size=len(block) + 1), options
            )
        except pa.ArrowInvalid:
            continue
    return None


def _checked_table(objects: _Objects, columns: tuple[str, str], path: Path) -> pa.Table:
    """Two columns cell by cell: slower, but a column may mix strings and integers, and a fault has a line."""
    convert, kind = (_number, pa.int64()) if columns == NUMBERS else (_id, pa.large_string())
    arrays: dict[str, list[Any]] = {name: [] for name in columns}
    for line, cells in objects:
        for name, array in arrays.items():
            cell = cells.get(name)
            try:
                array.append(None if cell is None else convert(cell))
            except ValueError as error:
                shown = json.dumps(cell)[:_CHARACTERS_SHOWN]
                raise InputError(f"{path}: line {line}: {shown} in column {name} is {error}") from None
    return pa.table({name: pa.array(array, kind) for name, array in arrays.items()})


def _id(cell: Any) -> bytes:
    if type(cell) not in (str, int):
        raise ValueError(f"{_KINDS[type(cell)]}, must be strings or integers")
    try:
        return str(cell).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a UTF-16 pair, must be Unicode") from None


def _number(cell: Any) -> int:
    if type(cell) is not int or not -(2**63) <= cell < 2**63:
        raise ValueError(f"{_KINDS[type(cell)]}, must be integers (ids: seed, target)")
    return cell


def _objects(block: bytes, first_line: int, path: Path) -> _Objects:
    """The objects of whole lines."""
    for line, content in enumerate(io.BytesIO(block), first_line):
        if not content.strip():
            continue
        try:
            cells = json.loads(content)
            fault = None if isinstance(cells, dict) else "no object"
        except json.JSONDecodeError as error:
            fault = f"no JSON from character {error.pos + 1} on"
        except (ValueError, RecursionError) as error:
            fault = str(error)
        if fault:
            raise InputError(f"{path}: line {line} cannot be read ({fault}); write it again")
        yield line, cells


def _tab_separated(path: Path) -> Iterator[_Piece]:
    with open_lines(path) as stream:
        for _, block in _blocks(stream):
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


def _blocks(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Whole lines, about `_BYTES_AT_ONCE`, not all blank; and the number of the first one, from 1."""
    line = 1
    while block := stream.read(_BYTES_AT_ONCE):
        block += stream.readline()
        if block.strip():
            yield line, block
        line += block.count(b"\n")


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
