"""Shards: Parquet files of encoded pictures, and the one place that says what is in them.

A data set is a prefix with `*.parquet` shards and `_dataset.json`, which lists them and is written
last: readers follow it, so a shard of a broken ingest is never read. Pictures are kept as the bytes
that came in, never encoded again. A row is a pair, or (with `input` null) a clean picture that is
degraded when it is read. A row of a clip is a frame with those around it that its references need, as JPEG
of quality 95.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import groupby, zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.services import locations, storage
from pipelines.services.storage import StorageError
from spair_core import images
from spair_core.degradations.crops import Example, degrade
from spair_core.footage import Window
from spair_core.images import PictureError
from spair_core.masks import mask_from_pair

VERSION = "1"
RECORD = "_dataset.json"
LATER = frozenset({"window"})
"""Columns that earlier shards lack; they are read as null."""
ROW_GROUP_ROWS = 16
ROW_GROUP_BYTES = 16 << 20
"""A row group is closed at whichever comes first: a unit of reading, small enough to stream."""


WINDOW = pa.struct(
    [
        pa.field("frames", pa.list_(pa.binary())),
        pa.field("place", pa.int32()),
        pa.field("neighbours", pa.list_(pa.int32())),
        pa.field("beats", pa.list_(pa.int32())),
    ]
)


def _field(name: str, kind: pa.DataType, meaning: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})


SCHEMA = pa.schema(
    [
        _field("key", pa.string(), "name of the picture within its set, without its ending"),
        _field("input", pa.binary(), "encoded degraded picture; null: degrade the target", nullable=True),
        _field("target", pa.binary(), "encoded clean picture"),
        _field("mask", pa.binary(), "encoded mask, bright = degraded; null: from the pair", nullable=True),
        _field("height", pa.int32(), "pixels"),
        _field("width", pa.int32(), "pixels"),
        _field("task", pa.string(), "rain, raindrop, shadow or blur"),
        _field("set", pa.string(), "name of the data set"),
        _field("split", pa.string(), "train, val or test"),
        _field("source", pa.string(), "location of the input (of the target where there is none)"),
        _field("digest", pa.string(), "SHA-256 over input, target, mask and window's frames, in hexadecimal"),
        _field(
            "window",
            WINDOW,
            "of a frame: encoded frames around it in order of time as the camera saw them, empty at its own "
            "place, and the places of its neighbours and beats; null: a still",
            nullable=True,
        ),
    ],
    metadata={"spair.schema": VERSION},
)


@dataclass(frozen=True)
class RowGroup:
    """A unit of reading: row group `index` of the shard at `uri`, with its number of `rows`."""

    uri: str
    index: int
    rows: int


@dataclass(frozen=True)
class Shard:
    """A written shard: its file `name` below the data set, its rows, and the split they all belong to."""

    name: str
    rows: int
    split: str


def row_digest(parts: Iterable[bytes | None]) -> str:
    """SHA-256 over the parts, each preceded by its length, so that none can pass for another."""
    total = hashlib.sha256()
    for part in parts:
        total.update(str(-1 if part is None else len(part)).encode() + b":")
        total.update(part or b"")
    return total.hexdigest()


def write_shard(uri: str, rows: Sequence[dict[str, Any]]) -> Shard:
    """Write one shard below the data set at `uri`, named after its content. Raises StorageError."""
    named = "".join(row["digest"] + row["key"] + row["set"] for row in rows)
    content = hashlib.sha256(named.encode()).hexdigest()[:16]
    name = f"{rows[0]['split']}-{content}.parquet"
    sink = pa.BufferOutputStream()
    # Pictures are compressed already.
    with pq.ParquetWriter(
        sink, SCHEMA, compression="none", use_dictionary=["task", "set", "split"]
    ) as writer:
        for group in _grouped(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA), row_group_size=len(group))
    storage.write_bytes(locations.join(uri, name), sink.getvalue().to_pybytes())
    return Shard(name, len(rows), rows[0]["split"])


def _grouped(rows: Sequence[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += row_bytes(row)
        if len(group) == ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def row_bytes(row: dict[str, Any]) -> int:
    """Bytes of the pictures in a row."""
    around = (row.get("window") or {}).get("frames", [])
    return sum(len(part or b"") for part in (row["input"], row["target"], row["mask"], *around))


def commit(uri: str, shards: Sequence[Shard], facts: dict[str, Any]) -> None:
    """Publish a data set: `_dataset.json`, with its shards and what else is known of it."""
    record = {"schema": VERSION, "shards": [asdict(shard) for shard in shards], **facts}
    storage.write_bytes(locations.join(uri, RECORD), json.dumps(record, indent=1, sort_keys=True).encode())


def read_record(uri: str) -> dict[str, Any] | None:
    """The `_dataset.json` of a prefix, or None where it has none. Raises StorageError."""
    location = locations.join(uri, RECORD)
    if not storage.exists(location):
        return None
    try:
        record: dict[str, Any] = json.loads(storage.read_bytes(location))
    except ValueError as error:
        raise StorageError(f"{location}: is not JSON ({error}); ingest the set again") from error
    if record.get("schema") != VERSION:
        raise StorageError(
            f"{location}: was written with schema {record.get('schema')!r}, this version reads {VERSION!r}; "
            "ingest the set again"
        )
    return record


def shard_uris(uri: str, split: str | None = None) -> list[str]:
    """The shards of a data set (of one split), or the one that `uri` names itself. Raises StorageError."""
    uri = locations.absolute(uri)
    if uri.endswith(".parquet"):
        return [uri]
    record = read_record(uri)
    if record is not None:
        splits = {shard["split"] for shard in record["shards"]}
        if split is not None and split not in splits:
            raise StorageError(f"{uri}: has no split {split!r}, only {', '.join(sorted(splits))}")
        return [
            locations.join(uri, shard["name"])
            for shard in record["shards"]
            if split in (None, shard["split"])
        ]
    found = [item.uri for item in storage.list_objects(uri) if item.key.endswith(".parquet")]
    if not found:
        raise StorageError(f"{uri}: holds no shards; make some with jobs/ingest.py --destination {uri}")
    return found


def digest(uri: str, split: str | None = None) -> str:
    """SHA-256 over a data set's (or one split's) shards, whose names come from their content.

    Changes with the pictures, not with the place. Raises StorageError.
    """
    names = sorted(locations.name_of(shard) for shard in shard_uris(uri, split))
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def list_row_groups(uris: Sequence[str], split: str | None = None) -> list[RowGroup]:
    """The row groups of data sets (of one split), from the shards' footers alone. Raises StorageError."""
    groups = []
    for uri in uris:
        for shard in shard_uris(uri, split):
            metadata = _open(shard).metadata
            groups += [
                RowGroup(shard, i, metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups)
            ]
    return groups


def read_row_group(group: RowGroup) -> list[dict[str, Any]]:
    """The rows of one row group, read by ranges. Raises StorageError."""
    file = _open(group.uri)
    with storage.explained(group.uri):
        rows: list[dict[str, Any]] = file.read_row_group(group.index).to_pylist()
    return rows


def rows_in_turn(groups: Iterable[RowGroup]) -> Iterator[dict[str, Any]]:
    """The rows of row groups, one of each set in turn while it has any. Raises StorageError."""
    sets: dict[str, list[RowGroup]] = {}
    for uri, of_shard in groupby(groups, key=lambda group: group.uri):
        sets.setdefault(_set_of(uri), []).extend(of_shard)
    streams = [(row for group in of_set for row in read_row_group(group)) for of_set in sets.values()]
    for together in zip_longest(*streams):
        yield from (row for row in together if row is not None)


def _set_of(shard: str) -> str:
    """The set that the rows of a shard belong to: no shard has two."""
    with storage.explained(shard):
        name: str = _open(shard).read_row_group(0, columns=["set"])["set"][0].as_py()
    return name


@lru_cache(maxsize=64)
def _open(uri: str) -> pq.ParquetFile:
    filesystem, path = locations.arrow_filesystem(uri)
    with storage.explained(uri):
        try:
            file = pq.ParquetFile(path, filesystem=filesystem, pre_buffer=True)
        except pa.ArrowInvalid as error:
            raise StorageError(f"{uri}: is not a Parquet file, or cut short ({error})") from error
    _check_schema(uri, file.schema_arrow)
    return file


def _check_schema(uri: str, schema: pa.Schema) -> None:
    missing = [name for name in SCHEMA.names if name not in schema.names and name not in LATER]
    if missing:
        raise StorageError(
            f"{uri}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            "shards are written by jobs/ingest.py"
        )
    version = (schema.metadata or {}).get(b"spair.schema", b"?").decode()
    if version != VERSION:
        raise StorageError(
            f"{uri}: has schema version {version}, this version reads {VERSION}; ingest the set again"
        )


def decode_example(row: dict[str, Any]) -> Example:
    """The pictures of a row. Raises PictureError, naming the row's source."""
    try:
        degraded = images.decode(row["input"]).pixels if row["input"] is not None else None
        mask = images.decode_mask(row["mask"]) if row["mask"] is not None else None
        clean = images.decode(row["target"]).pixels
        window = _window(row.get("window"), clean if degraded is None else degraded)
        return Example(degraded, clean, mask, window)
    except ValueError as error:
        raise PictureError(f"{row['source']}: {error}") from error


def _window(kept: dict[str, Any] | None, frame: NDArray[np.uint8]) -> Window | None:
    if kept is None:
        return None
    frames = [images.decode(data).pixels if data else frame for data in kept["frames"]]
    place = int(kept["place"])
    neighbours, beats = (tuple(int(k) for k in kept[name]) for name in ("neighbours", "beats"))
    return Window(np.stack(frames), range(place, place + 1), (neighbours,), (beats,))


def judged_example(row: dict[str, Any], threshold: float) -> tuple[Example, NDArray[np.uint8]]:
    """The example of a row with its mask filled in, and its degraded picture.

    A clean picture is degraded for its task from a seed of its digest, so the same for every model.
    Raises PictureError.
    """
    example = decode_example(row)
    if example.degraded is None:
        rng = np.random.default_rng(int(row["digest"][:15], 16))
        try:
            example = degrade(example, rng, row["task"], dry=0.0, threshold=threshold)
        except ValueError as error:
            raise PictureError(f"{row['source']}: {error}") from error
    degraded = example.degraded
    if degraded is None:
        raise PictureError(f"{row['source']}: nothing degraded to judge by")
    mask = example.mask if example.mask is not None else mask_from_pair(degraded, example.clean, threshold)
    return Example(degraded, example.clean, mask, example.window), degraded
