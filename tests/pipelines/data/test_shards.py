import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data import shards
from pipelines.services import locations
from pipelines.services.storage import StorageError
from spair_core import images
from spair_core.images import PictureError, encode_png


def row(key, photo, **changes):
    made = {
        "key": key,
        "input": encode_png(photo // 2),
        "target": encode_png(photo),
        "mask": None,
        "height": photo.shape[0],
        "width": photo.shape[1],
        "task": "rain",
        "set": "tiny",
        "split": "train",
        "source": f"memory/{key}",
        "window": None,
    } | changes
    return made | {"digest": shards.row_digest([made["input"], made["target"], made["mask"]])}


@pytest.fixture
def rows(photos):
    return [row(f"{i:02d}", photos[0][i : i + 20, :30]) for i in range(20)]


def test_rows_come_back_by_row_group(rows, s3):
    shard = shards.write_shard(s3, rows)
    shards.commit(s3, [shard], {"rows": {"train": 20}})
    groups = shards.list_row_groups([s3], "train")
    assert [group.rows for group in groups] == [16, 4]
    assert shards.read_row_group(groups[1]) == rows[16:]
    example = shards.decode_example(shards.read_row_group(groups[0])[3])
    assert (example.degraded == images.decode(rows[3]["input"]).pixels).all()


def test_every_set_has_its_turn(photos, tmp_path):
    """Also one of several shards, and one whose shards come last."""
    made = {name: [row(f"{name}{k}", photos[0][k : k + 8, :8], set=name) for k in range(4)] for name in "abc"}
    uri = str(tmp_path)
    parts = [made["a"][:2], made["b"][:1], made["a"][2:], made["c"]]
    shards.commit(uri, [shards.write_shard(uri, part) for part in parts], {})
    keys = [found["key"] for found in shards.rows_in_turn(shards.list_row_groups([uri]))]
    assert keys == ["a0", "b0", "c0", "a1", "c1", "a2", "c2", "a3", "c3"]


def test_names_follow_the_content(rows, tmp_path):
    first, again = (shards.write_shard(str(tmp_path), rows).name for _ in range(2))
    assert first == again
    assert shards.write_shard(str(tmp_path), rows[1:]).name != first


def test_a_digest_follows_the_pictures_not_the_place(rows, tmp_path):
    def made(name, *parts):
        uri = str(tmp_path / name)
        shards.commit(uri, [shards.write_shard(uri, part) for part in parts], {})
        return uri

    held_out = [{**row, "split": "val"} for row in rows[5:]]
    whole, same, less = made("a", rows[:5], held_out), made("b", held_out, rows[:5]), made("c", rows[:4])
    assert shards.digest(whole) == shards.digest(same) != shards.digest(less)
    assert len({shards.digest(whole, "train"), shards.digest(whole, "val"), shards.digest(whole)}) == 3
    assert shards.digest(shards.shard_uris(whole, "train")[0]) == shards.digest(whole, "train")


def test_readers_follow_the_record(rows, tmp_path):
    kept = shards.write_shard(str(tmp_path), rows[:3])
    shards.write_shard(str(tmp_path), rows[3:])  # of an ingest that broke off
    assert len(shards.shard_uris(str(tmp_path))) == 2
    shards.commit(str(tmp_path), [kept], {})
    assert shards.shard_uris(str(tmp_path)) == [locations.join(str(tmp_path), kept.name)]
    with pytest.raises(StorageError, match="no split 'val'"):
        shards.list_row_groups([str(tmp_path)], "val")


def test_other_files_are_refused(rows, tmp_path):
    path = str(tmp_path / "x.parquet")
    pq.write_table(pa.table({"key": ["a"], "input": [b""]}), path)
    with pytest.raises(StorageError, match=r"lacks the columns target, mask"):
        shards.list_row_groups([path])
    other = shards.SCHEMA.with_metadata({"spair.schema": "99"})
    path = str(tmp_path / "y.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=other), path)
    with pytest.raises(StorageError, match="schema version 99"):
        shards.list_row_groups([path])
    path = tmp_path / "z.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(StorageError, match="not a Parquet file"):
        shards.list_row_groups([str(path)])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("")
    with pytest.raises(StorageError, match="holds no shards"):
        shards.list_row_groups([str(tmp_path / "empty")])


@pytest.mark.parametrize("task", ["rain", "raindrop", "shadow", "blur"])
def test_clean_rows_are_degraded_the_same_way_every_time(photos, task):
    clean = row("a", photos[0][120:312, 200:392], input=None, task=task)
    (first, degraded), (again, _) = (shards.judged_example(clean, 0.05) for _ in range(2))
    assert (first.degraded == again.degraded).all()
    assert first.mask.any()
    assert (degraded != first.clean).any()


def test_clean_rows_are_degraded_for_their_task(photos):
    rows = [row("a", photos[0][120:184, 200:264], input=None, task=task) for task in ("shadow", "rain")]
    (shadowed, darker), (rained, lighter) = (shards.judged_example(one, 0.05) for one in rows)
    assert (darker <= shadowed.clean).all()
    assert (lighter >= rained.clean)[rained.mask].all()
    with pytest.raises(PictureError, match=r"memory/a: .*the task 'none'"):
        shards.judged_example(row("a", photos[0][120:184, 200:264], input=None, task="none"), 0.05)


def test_broken_rows_name_their_source(photos):
    with pytest.raises(PictureError, match=r"memory/a: .*cut short"):
        shards.decode_example(row("a", photos[0][:20, :20], target=encode_png(photos[0])[:500]))
    with pytest.raises(PictureError, match="mask is 3x4"):
        shards.decode_example(row("a", photos[0][:20, :20], mask=encode_png(np.zeros((4, 3), bool))))


def test_digests_tell_where_parts_end():
    assert shards.row_digest([b"ab", b"c"]) != shards.row_digest([b"a", b"bc"])
    assert shards.row_digest([None]) != shards.row_digest([b""])


def test_shards_from_before_frames_are_read(rows, tmp_path):
    """Their files lack the column `window`."""
    shard = shards.write_shard(str(tmp_path), rows)
    path = tmp_path / shard.name
    table = pq.read_table(path)
    assert "window" in table.column_names
    pq.write_table(table.drop_columns(["window"]), path)
    (group,) = shards.list_row_groups([str(path)])
    example = shards.decode_example(shards.read_row_group(group)[0])
    assert example.window is None
