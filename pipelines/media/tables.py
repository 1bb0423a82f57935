"""Tables of encoded pictures, in Parquet: the same table, with a column of restored ones beside them.

A row group is read and written a few rows at a time; what is yet to be written of it waits on disk.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.media import inside
from pipelines.media.inside import Inside, Parts
from pipelines.media.medium import Encoding, Medium, MediumError, Piece
from pipelines.media.pictures import PICTURE
from spair_core import images
from spair_core.footage import Reach
from spair_core.images import PictureError

RESTORED = "restored"
UNCHANGED = "nothing was changed: its pictures stand among the restored as they are"
PROBED = 8
"""Values that are looked at to tell what a column holds."""
BATCH_BYTES, BATCH_ROWS = 32 << 20, 128
"""No more than either is read at a time, by what a row takes on the average."""
BUFFER = 1 << 20


@dataclass(frozen=True)
class _Column:
    """A column of pictures, of structs whose field `bytes` they are, or of lists of either, and the name of
    the one beside it."""

    place: int
    field: pa.Field
    restored: str

    @property
    def type(self) -> pa.DataType:
        """Of the one beside it."""
        return _with_nulls(self.field.type)

    def data(self, value: Any) -> Iterator[bytes | None]:
        """The pictures of a value: those of a list in its order, else the one."""
        if isinstance(value, list):
            for one in value:
                yield from self.data(one)
        else:
            yield value["bytes"] if isinstance(value, dict) else value

    def with_data(self, value: Any, restored: Iterator[bytes | None]) -> Any:
        """The value with other pictures, as many of them; null where there is none."""
        if isinstance(value, list):
            return [self.with_data(one, restored) for one in value]
        data = next(restored)
        return {**value, "bytes": data} if isinstance(value, dict) and data is not None else data


@dataclass
class _Troubles:
    """How many pictures of each column something could not be done with, and what was said of the first."""

    what: str
    counts: dict[str, int] = field(default_factory=dict)
    firsts: dict[str, str] = field(default_factory=dict)

    def add(self, column: str, row: int, reason: str) -> None:
        self.counts[column] = self.counts.get(column, 0) + 1
        self.firsts.setdefault(column, f"row {row}: {reason}")

    def told(self) -> list[str]:
        return [
            f"{column}: {self.what}, null among the restored: {count}, the first in {self.firsts[column]}"
            for column, count in self.counts.items()
        ]


def read(path: Path, reach: Reach | None, encoding: Encoding | None = None) -> Iterator[Piece]:
    """A piece a picture, row by row; none where no column holds pictures.

    What cannot be read is a note. Raises MediumError: no Parquet file, damaged, or none of it can be read.
    """
    troubles, empty = _Troubles("pictures that cannot be read"), True
    with _explained():
        for piece in inside.noted(_found(path, reach, troubles)):
            empty = False
            yield piece
    if empty and troubles.counts:
        raise MediumError("; ".join(troubles.told()))


def _found(path: Path, reach: Reach | None, troubles: _Troubles) -> Iterator[Piece | str]:
    with _opened(path) as file, tempfile.TemporaryDirectory() as folder:
        columns = _columns(file)
        if not columns:
            return
        owners = count()
        # Of all columns, so that damage to any of them is found before the work is done.
        for first, batch in _batches(file, None):
            for row, column, value in _values(batch, columns):
                for data in column.data(value):
                    try:
                        yield from _pieces(next(owners), column, data, Path(folder) / "picture", reach)
                    except MediumError as error:
                        troubles.add(column.field.name, first + row, str(error))
        yield from troubles.told()


def _values(batch: pa.RecordBatch, columns: Sequence[_Column]) -> Iterator[tuple[int, _Column, Any]]:
    """Row by row those of the columns. In this order their pictures are numbered; its number is each one's
    owner."""
    for row in range(batch.num_rows):
        for column in columns:
            yield row, column, batch.column(column.place)[row].as_py()


def _pieces(
    owner: int, column: _Column, data: bytes | None, spooled: Path, reach: Reach | None
) -> Iterator[Piece]:
    if data is None:
        return
    spooled.write_bytes(data)
    for piece in inside.pieces(owner, PICTURE, PICTURE.read(spooled, reach)):
        notes = tuple(f"{column.field.name}: {note}" for note in piece.notes)
        yield Piece(piece.window, piece.state, piece.seconds, notes)


def write(state: Inside, pixels: NDArray[Any], encoding: Encoding) -> bytes:
    """A part that knows its row and column."""
    return inside.write(state, pixels, encoding, PICTURE)


def join(parts: Iterable[bytes], source: Path, target: Path) -> Sequence[str]:
    """The table with the restored columns at its end, row group by row group; what of it could not be kept.

    A picture in which nothing was found is its own restored one; a note says where that is so of all of them.
    Raises MediumError.
    """
    coming = _Coming(Parts(parts))
    with _explained(), _opened(source) as file, tempfile.TemporaryDirectory() as folder:
        columns = _columns(file)
        schema = _schema(file.schema_arrow, columns)
        with pq.ParquetWriter(target, schema, **_options(file, columns)) as writer:
            for group in range(file.num_row_groups):
                batches = _batches(file, None, group)
                grown = (_grown(batch, first, schema, columns, coming) for first, batch in batches)
                with _on_disk(grown, schema, Path(folder) / f"{group}") as table:
                    writer.write_table(table, row_group_size=max(1, table.num_rows))
    coming.parts.check_all_taken()
    unchanged = () if coming.parts.changed else (UNCHANGED,)
    return [*coming.troubles.told(), *coming.lost, *unchanged]


@dataclass
class _Coming:
    """The restored pictures, taken in the order in which they were read."""

    parts: Parts
    owners: Iterator[int] = field(default_factory=count)
    troubles: _Troubles = field(default_factory=lambda: _Troubles("pictures that could not be written"))
    lost: dict[str, None] = field(default_factory=dict)

    def restored(self, value: Any, column: _Column, row: int) -> Any:
        """A value with its restored pictures."""
        pictures = (self._picture(data, column.field.name, row) for data in column.data(value))
        return column.with_data(value, pictures)

    def _picture(self, source: bytes | None, column: str, row: int) -> bytes | None:
        part = next(iter(list(self.parts.of(next(self.owners)))), None)
        if part is not None and part.error:
            self.troubles.add(column, row, part.error)
        if part is None or part.error:
            return None
        if part.changed:
            self.lost |= dict.fromkeys(f"{column}: {sentence}" for sentence in part.lost)
        return part.data if part.changed else source


def _grown(
    batch: pa.RecordBatch, first: int, schema: pa.Schema, columns: Sequence[_Column], coming: _Coming
) -> pa.RecordBatch:
    """Rows with their restored pictures."""
    restored: dict[int, list[Any]] = {column.place: [] for column in columns}
    for row, column, value in _values(batch, columns):
        restored[column.place].append(coming.restored(value, column, first + row))
    arrays = [pa.array(restored[column.place], column.type) for column in columns]
    return pa.RecordBatch.from_arrays([*batch.columns, *arrays], schema=schema)


def _columns(file: pq.ParquetFile) -> list[_Column]:
    """Those that hold pictures, by their types and their first values."""
    schema = file.schema_arrow
    found = [place for place, one in enumerate(schema) if _may_hold(one.type) and _holds(file, one)]
    taken, columns = set(schema.names), []
    for place in found:
        name = RESTORED if len(found) == 1 else f"{schema.field(place).name}_{RESTORED}"
        while name in taken:
            name += "_"
        taken.add(name)
        columns.append(_Column(place, schema.field(place), name))
    return columns


def _may_hold(type: pa.DataType) -> bool:
    if _is_list(type):
        return _may_hold(type.value_type)
    if pa.types.is_struct(type):
        places = type.get_all_field_indices("bytes")
        return len(places) == 1 and _is_bytes(type.field(places[0]).type)
    return _is_bytes(type)


def _is_bytes(type: pa.DataType) -> bool:
    if pa.types.is_dictionary(type):
        return _is_bytes(type.value_type)
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_binary_view(type))


def _is_list(type: pa.DataType) -> bool:
    kinds = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
    return any(getattr(pa.types, f"is_{kind}")(type) for kind in kinds)


def _with_nulls(type: pa.DataType) -> pa.DataType:
    """The same, but that its lists, if it has any, may have nulls among what they hold."""
    if not _is_list(type):
        return type
    held = type.value_field.with_type(_with_nulls(type.value_type)).with_nullable(True)
    return type if held == type.value_field else pa.list_(held)


def _holds(file: pq.ParquetFile, one: pa.Field) -> bool:
    """Whether any of the first values is a picture."""
    column = _Column(0, one, "")
    values = (
        data
        for _, batch in _batches(file, [one.name])
        for value in batch.column(0)
        for data in column.data(value.as_py())
        if data is not None
    )
    return any(map(_is_picture, islice(values, PROBED)))


def _is_picture(data: bytes) -> bool:
    try:
        images.probe(data)
    except PictureError:
        return False
    return True


def _batches(
    file: pq.ParquetFile, names: Sequence[str] | None, group: int | None = None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Some rows at a time of some columns (all), each with the number of its first row."""
    first = 0
    for number in range(file.num_row_groups):
        told = file.metadata.row_group(number)
        if group is None or number == group:
            rows = max(1, min(BATCH_ROWS, told.num_rows * BATCH_BYTES // max(1, told.total_byte_size)))
            at = first
            for batch in file.iter_batches(rows, [number], names, use_threads=False):
                yield at, batch
                at += batch.num_rows
        first += told.num_rows


def _schema(schema: pa.Schema, columns: Sequence[_Column]) -> pa.Schema:
    """With the restored columns, of which those who read the table with pandas or `datasets` know too."""
    for column in columns:
        schema = schema.append(pa.field(column.restored, column.type))
    metadata = dict(schema.metadata or {})
    for key, tell in ((b"pandas", _tell_pandas), (b"huggingface", _tell_datasets)):
        if key in metadata:
            metadata[key] = _told(metadata[key], columns, tell)
    return schema.with_metadata(metadata or None)


def _told(text: bytes, columns: Sequence[_Column], tell: Any) -> bytes:
    try:
        told = json.loads(text)
        for column in columns:
            tell(told, column)
        return json.dumps(told).encode()
    except (ValueError, KeyError, TypeError, AttributeError):
        return text  # none of theirs, and so it stays what it is


def _tell_pandas(told: dict[str, Any], column: _Column) -> None:
    (one,) = [one for one in told["columns"] if one["field_name"] == column.field.name]
    told["columns"].append({**one, "name": column.restored, "field_name": column.restored})


def _tell_datasets(told: dict[str, Any], column: _Column) -> None:
    features = told["info"]["features"]
    features[column.restored] = features[column.field.name]


def _options(file: pq.ParquetFile, columns: Sequence[_Column]) -> dict[str, Any]:
    """How the file was written, column by column, as far as it tells."""
    group = file.metadata.row_group(0)
    chunks = {chunk.path_in_schema: chunk for chunk in map(group.column, range(group.num_columns))}
    codecs = {path: _codec(chunk.compression) for path, chunk in chunks.items()}
    for column in columns:
        name = column.field.name
        ours = {path: codec for path, codec in codecs.items() if path == name or path.startswith(f"{name}.")}
        codecs |= {column.restored + path[len(name) :]: codec for path, codec in ours.items()}
    version = file.metadata.format_version
    return {
        "compression": codecs,
        "use_dictionary": [path for path, chunk in chunks.items() if chunk.has_dictionary_page],
        "write_statistics": [path for path, chunk in chunks.items() if chunk.is_stats_set],
        "version": version if version in ("1.0", "2.4", "2.6") else "2.6",
        "use_deprecated_int96_timestamps": any(one.physical_type == "INT96" for one in chunks.values()),
        "sorting_columns": group.sorting_columns or None,
        "write_page_index": any(chunk.has_offset_index for chunk in chunks.values()),
    }


def _codec(name: str) -> str:
    return {"UNCOMPRESSED": "NONE", "LZ4_RAW": "LZ4"}.get(name, name)


@contextmanager
def _on_disk(batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path) -> Iterator[pa.Table]:
    """A table of rows that are read from disk as they are needed."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as reader:
        yield reader.read_all()
    path.unlink()


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    if not path.stat().st_size:
        raise MediumError("the file is empty")
    with pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
        yield file


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        raise MediumError(f"no Parquet file, or damaged: {error}") from error
    except OSError as error:
        # Arrow says so of damage; a disk's errors have a number.
        if error.errno is not None:
            raise
        raise MediumError(f"damaged: {error}") from error


TABLE = Medium("table", frozenset({".parquet"}), read, write, join, collection=True, grows=True)
