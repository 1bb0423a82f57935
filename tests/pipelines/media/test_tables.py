"""Tables keep all that they hold, and get a column of restored pictures."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.media import Encoding, MediumError, medium, tables
from spair_core import images
from tests.pipelines.media.samples import encoded

TABLE = medium("table")


@pytest.fixture
def small(photos):
    return photos[0][:32, :48]


def restored(source, target, change=lambda number, pixels: pixels ^ 1):
    """Restore a table, with `change` in place of a model; what was noted of it."""
    notes, parts = [], []
    for number, piece in enumerate(TABLE.read(source, None)):
        notes += piece.notes
        parts.append(TABLE.write(piece.state, change(number, piece.window.pixels), Encoding()))
    return [*notes, *TABLE.join(iter(parts), source, target)]


def looks(data: bytes):
    return images.decode(data).pixels


def several(small, count):
    return [encoded(np.roll(small, k, axis=1)) for k in range(count)]


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TYPES = {
    "binary": (pa.binary(), lambda data: data),
    "large": (pa.large_binary(), lambda data: data),
    "struct": (STRUCT, lambda data: None if data is None else {"bytes": data, "path": "a/b.png"}),
}


@pytest.mark.parametrize("type", ["binary", "large", "struct"])
@pytest.mark.parametrize("rows", [1, 256])
def test_a_column_is_restored_beside_what_there_was(tmp_path, small, type, rows, monkeypatch):
    """Whatever number of rows is read at a time."""
    monkeypatch.setattr(tables, "BATCH_ROWS", rows)
    arrow, made = TYPES[type]
    pictures = several(small, 5)
    pictures[1], pictures[3] = None, encoded(small)[:-60]
    table = pa.table(
        {
            "label": pa.array([3, None, 1, 4, 1], pa.int8()),
            "picture": pa.array([made(data) for data in pictures], arrow),
            "blob": pa.array([b"no picture"] * 5, pa.binary()),
            "kind": pa.array(["a", "b", "a", None, "b"]).dictionary_encode(),
            "boxes": pa.array([[[1.5, 2.0]], [], None, [[0.1], []], [[3.0]]]),
            "when": pa.array([1, 2, 3, None, 5], pa.timestamp("ns", "UTC")),
        },
        metadata={"by": "hand"},
    )
    codecs = {"label": "GZIP", "picture": "NONE", "picture.bytes": "NONE", "blob": "ZSTD"}
    source, target = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(table, source, row_group_size=2, compression=codecs, use_dictionary=["kind"])
    notes = restored(source, target, lambda number, pixels: pixels ^ (number > 0))
    (note,) = notes
    assert note.startswith(
        "picture: pictures that cannot be read, null among the restored: 1, the first in row 3: "
    )

    again = pq.read_table(target)
    assert again.schema.names == [*table.schema.names, "restored"]
    assert again.select(table.schema.names).equals(pq.read_table(source), check_metadata=True)
    assert again.schema.field("restored").type == arrow
    first, null, third, unread, fifth = again["restored"].to_pylist()
    assert (first, null, unread) == (made(pictures[0]), None, None)
    for value, picture in ((third, pictures[2]), (fifth, pictures[4])):
        data = value if type != "struct" else value["bytes"]
        assert type != "struct" or value["path"] == "a/b.png"
        assert (looks(data) == looks(picture) ^ 1).all()

    before, after = pq.ParquetFile(source).metadata, pq.ParquetFile(target).metadata
    assert [after.row_group(k).num_rows for k in range(3)] == [2, 2, 1]
    for column in range(before.num_columns):
        one, two = before.row_group(0).column(column), after.row_group(0).column(column)
        for name in ("path_in_schema", "compression", "has_dictionary_page", "physical_type"):
            assert getattr(one, name) == getattr(two, name)


def of_type(arrow, data):
    """A value of a type with a picture in it."""
    if arrow in (STRUCT, DICTIONARY_STRUCT):
        return {"bytes": data, "path": "a.png"}
    return data


DICTIONARY = pa.dictionary(pa.int32(), pa.binary())
DICTIONARY_STRUCT = pa.struct([("bytes", DICTIONARY), ("path", pa.string())])


@pytest.mark.parametrize("arrow", [DICTIONARY, DICTIONARY_STRUCT])
def test_pictures_of_a_dictionary(tmp_path, small, arrow):
    one, two = several(small, 2)
    values = [of_type(arrow, data) for data in (one, two, one, two, two)]
    table = pa.table({"picture": pa.array([*values, None], arrow)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    assert restored(tmp_path / "a.parquet", tmp_path / "b.parquet") == []
    again = pq.read_table(tmp_path / "b.parquet")
    assert again.select(["picture"]).equals(pq.read_table(tmp_path / "a.parquet"))
    assert again.schema.field("restored").type == arrow
    *found, null = again["restored"].to_pylist()
    assert null is None
    for value, picture in zip(found, (one, two, one, two, two), strict=True):
        data = value if arrow == DICTIONARY else value["bytes"]
        assert (looks(data) == looks(picture) ^ 1).all()


@pytest.mark.parametrize("held", [pa.binary(), STRUCT, DICTIONARY])
@pytest.mark.parametrize("nullable", [True, False])
@pytest.mark.parametrize("make", [pa.list_, pa.large_list])
def test_pictures_in_lists(tmp_path, small, held, nullable, make):
    arrow = make(pa.field("element", held, nullable=nullable))
    one, two, three = several(small, 3)
    made = [[one, two], [], None, [three, two[:-60], one]]
    values = [None if value is None else [of_type(held, data) for data in value] for value in made]
    table = pa.table({"n": [1, 2, 3, 4], "shots": pa.array(values, arrow), "one": [one, None, two, one]})
    source, target = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(table, source, row_group_size=3)
    (note,) = restored(source, target, lambda number, pixels: pixels ^ (number != 1))
    assert note.startswith("shots: pictures that cannot be read")
    assert ": 1, the first in row 3" in note
    again = pq.read_table(target)
    assert again.select(table.schema.names).equals(pq.read_table(source))
    if nullable:
        assert again.schema.field("shots_restored").type == again.schema.field("shots").type
    first, none, null, last = again["shots_restored"].to_pylist()
    assert (none, null) == ([], None)
    assert first[1] == of_type(held, two)
    assert last[1] is None
    for value, picture in zip((first[0], last[0], last[2]), (one, three, one), strict=True):
        data = value["bytes"] if held == STRUCT else value
        assert (looks(data) == looks(picture) ^ 1).all()
    for data, picture in zip(again["one_restored"].to_pylist(), (one, None, two, one), strict=True):
        assert data is picture is None or (looks(data) == looks(picture) ^ 1).all()


def test_several_columns_of_pictures_each_get_one(tmp_path, small):
    one, two = several(small, 3), several(small[::-1], 3)
    table = pa.table({"left": one, "n": [1, 2, 3], "right": two, "left_restored": ["x", "y", "z"]})
    pq.write_table(table, tmp_path / "a.parquet")
    restored(tmp_path / "a.parquet", tmp_path / "b.parquet")
    again = pq.read_table(tmp_path / "b.parquet")
    assert again.schema.names == [*table.schema.names, "left_restored_", "right_restored"]
    assert again.select(table.schema.names).equals(table)
    for name, pictures in (("left_restored_", one), ("right_restored", two)):
        for data, picture in zip(again[name].to_pylist(), pictures, strict=True):
            assert (looks(data) == looks(picture) ^ 1).all()


def test_pandas_and_datasets_know_of_the_new_column(tmp_path, small):
    frame = pd.DataFrame({"picture": several(small, 2), "label": ["a", "b"]}, index=[7, 9])
    frame.to_parquet(tmp_path / "a.parquet")
    restored(tmp_path / "a.parquet", tmp_path / "b.parquet")
    again = pd.read_parquet(tmp_path / "b.parquet")
    assert list(again.columns) == ["picture", "label", "restored"]
    assert list(again.index) == [7, 9]
    pd.testing.assert_frame_equal(again[["picture", "label"]], frame)

    features = {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}
    told = {"huggingface": json.dumps({"info": {"features": features}}), "pandas": "not what it should be"}
    images_ = pa.array([TYPES["struct"][1](data) for data in several(small, 2)], STRUCT)
    pq.write_table(pa.table({"image": images_, "label": [1, 2]}, metadata=told), tmp_path / "c.parquet")
    restored(tmp_path / "c.parquet", tmp_path / "d.parquet")
    metadata = pq.read_schema(tmp_path / "d.parquet").metadata
    assert json.loads(metadata[b"huggingface"])["info"]["features"] == {
        **features,
        "restored": {"_type": "Image"},
    }
    assert metadata[b"pandas"] == b"not what it should be"


def test_a_picture_may_come_late(tmp_path, small):
    """After rows without one, and after others that are none."""
    values = [None] * 600 + [b"", b"text"] + several(small, 1)
    pq.write_table(pa.table({"p": values}), tmp_path / "a.parquet", row_group_size=500)
    (note,) = restored(tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert ": 2, the first in row 600: " in note
    again = pq.read_table(tmp_path / "b.parquet")["restored"]
    assert again.null_count == 602
    assert (looks(again[602].as_py()) == small ^ 1).all()


def test_where_nothing_was_found_the_column_has_the_pictures_as_they_are(tmp_path, small):
    """So that a folder of tables has one schema."""
    pictures = [encoded(small, ".jpg"), None, encoded(small)]
    for name in ("a", "b"):
        pq.write_table(pa.table({"p": pictures, "n": [1, 2, 3]}), tmp_path / f"{name}.parquet")
    assert restored(tmp_path / "a.parquet", tmp_path / "a2.parquet") == []
    notes = restored(tmp_path / "b.parquet", tmp_path / "b2.parquet", lambda number, pixels: pixels)
    assert notes == [tables.UNCHANGED]
    assert pq.read_table(tmp_path / "b2.parquet")["restored"].to_pylist() == pictures
    assert pq.read_schema(tmp_path / "b2.parquet").equals(pq.read_schema(tmp_path / "a2.parquet"))
    assert TABLE.grows


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"a": [1, 2], "b": [b"no", b"pictures"]}),
        pa.table({"a": pa.array([], pa.binary())}),
        pa.table({"a": pa.array([None, None], pa.binary())}),
        pa.table({"a": [{"bytes": "text"}], "b": [{"path": "x"}]}),
    ],
)
def test_without_pictures_there_are_no_pieces(tmp_path, table):
    pq.write_table(table, tmp_path / "a.parquet")
    assert list(TABLE.read(tmp_path / "a.parquet", None)) == []


def test_what_is_damaged_is_told(tmp_path, small):
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    pq.write_table(pa.table({"p": several(noise, 9)}), tmp_path / "a.parquet", compression="zstd")
    data = (tmp_path / "a.parquet").read_bytes()
    broken = bytearray(data)
    broken[1000:3000] = bytes(2000)
    for damaged in (data[:5000], bytes(broken)):
        (tmp_path / "b.parquet").write_bytes(damaged)
        with pytest.raises(MediumError):
            list(TABLE.read(tmp_path / "b.parquet", None))


def test_a_table_of_which_nothing_can_be_read_is_refused(tmp_path, small):
    pq.write_table(pa.table({"p": [data[:-60] for data in several(small, 3)]}), tmp_path / "a.parquet")
    with pytest.raises(MediumError, match="3, the first in row 0"):
        list(TABLE.read(tmp_path / "a.parquet", None))


def test_what_cannot_be_written_is_null_and_told(tmp_path, small):
    pictures = [encoded(small, ".bmp"), encoded(small)]
    pq.write_table(pa.table({"p": pictures}), tmp_path / "a.parquet")
    (note,) = restored(
        tmp_path / "a.parquet",
        tmp_path / "b.parquet",
        lambda number, pixels: pixels.astype(np.uint16) if number == 0 else pixels,
    )
    assert "could not be written" in note
    assert pq.read_table(tmp_path / "b.parquet")["restored"].to_pylist() == [None, pictures[1]]
