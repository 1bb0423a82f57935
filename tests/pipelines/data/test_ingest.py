import itertools
import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from jobs.ingest import main
from pipelines.data import pairs, shards
from pipelines.data.ingest import IngestConfig, find, ingest
from pipelines.services import locations, storage
from pipelines.services.quarantine import Quarantine
from pipelines.services.storage import StorageError
from spair_core.images import encode_png
from tests.pipelines.media.test_clips import make_clip

pytestmark = pytest.mark.cluster


@pytest.fixture
def source(photos, s3):
    photo = photos[0][:40, :50]
    files = {
        **{f"{side}/{i}.png": encode_png(photo // (i + 1)) for i in range(4) for side in ("input", "target")},
        "mask/0.png": encode_png(np.eye(40, 50, dtype=bool)),
        "input/lonely.png": encode_png(photo),
        "input/broken.png": encode_png(photo)[:200],
        "target/broken.png": encode_png(photo),
        "input/odd.png": encode_png(photo[:30]),
        "target/odd.png": encode_png(photo),
        "input/twin.png": encode_png(photo),
        "input/twin.jpg": encode_png(photo),
        "target/twin.png": encode_png(photo),
        "input/notes.txt": b"hello",
    }
    for key, data in files.items():
        storage.write_bytes(locations.join(s3, "pairs", key), data)
    return f"{s3}/pairs"


def test_pairs_become_shards_and_the_rest_is_named(cluster, source, s3):
    config = IngestConfig(source, f"{s3}/shards", validation_share=0.3, set="tiny")
    report = ingest(config)
    assert sum(report.rows.values()) == 4
    reasons = dict(report.left_out)
    assert "no partner" in reasons["input/lonely.png"]
    assert "cut short" in reasons["broken"]
    assert "50x30" in reasons["odd"]
    assert {"input/twin.png", "input/twin.jpg", "target/twin.png"} <= reasons.keys()
    assert "not a picture" in reasons["input/notes.txt"]
    assert all(name in report.summary() for name in reasons)

    by_key = {row["key"]: row for row in rows_of(f"{s3}/shards")}
    assert by_key.keys() == {"0", "1", "2", "3"}
    assert by_key["0"]["mask"] is not None
    assert (by_key["1"]["width"], by_key["1"]["height"], by_key["1"]["set"]) == (50, 40, "tiny")
    record = json.loads(storage.read_bytes(f"{s3}/shards/_dataset.json"))
    assert record["rows"] == report.rows

    before = sorted(item.key for item in storage.list_objects(f"{s3}/shards"))
    ingest(config)
    assert sorted(item.key for item in storage.list_objects(f"{s3}/shards")) == before


def test_clean_pictures(cluster, source, s3):
    report = ingest(IngestConfig(f"{source}/target", f"{s3}/clean", layout="clean", limit=2))
    assert report.rows == {"train": 2}
    (group,) = shards.list_row_groups([f"{s3}/clean"])
    assert all(row["input"] is None for row in shards.read_row_group(group))


def test_wrong_places_fail_before_anything_starts(source, s3):
    with pytest.raises(StorageError, match=r"no pair in the layout folders.*0\.png: has no partner"):
        ingest(IngestConfig(f"{source}/target", f"{s3}/x"))
    with pytest.raises(StorageError, match="nothing is there"):
        ingest(IngestConfig(f"{s3}/nowhere", f"{s3}/x"))
    with pytest.raises(StorageError, match="no-such-bucket"):
        ingest(IngestConfig(source, "s3://no-such-bucket/x"))
    with pytest.raises(ValueError, match="validation_share"):
        IngestConfig(source, f"{s3}/x", validation_share=1.5)
    with pytest.raises(ValueError, match="tile_overlap"):
        IngestConfig(source, f"{s3}/x", tile=64)
    with pytest.raises(ValueError, match="--destination"):
        IngestConfig(source)


def rows_of(uri, split=None):
    return [row for group in shards.list_row_groups([uri], split) for row in shards.read_row_group(group)]


def test_a_set_in_its_own_layout_goes_on_beyond_what_is_broken(cluster, photos, tmp_path):
    photo = photos[0][:40, :50]
    shadow, mask = encode_png(photo // 2), encode_png(np.eye(40, 50, dtype=bool))
    for split in ("train", "test"):
        for name in ("1.png", "2.png", "3.png"):
            for side, data in (("A", shadow), ("B", mask), ("C", encode_png(photo))):
                storage.write_bytes(f"{tmp_path}/ISTD/{split}/{split}_{side}/{name}", data)
    storage.write_bytes(f"{tmp_path}/ISTD/train/train_B/2.png", encode_png(np.eye(30, 50, dtype=bool)))
    storage.write_bytes(f"{tmp_path}/ISTD/train/train_C/3.png", encode_png(photo)[:200])
    report = ingest(IngestConfig(f"{tmp_path}/ISTD", f"{tmp_path}/shards", layout="istd"))
    assert report.rows == {"train": 1, "test": 3}
    reasons = dict(report.left_out)
    assert "train_A/2.png: the mask is 50x30, the clean picture 50x40" in reasons["2"]
    assert "train_C/3.png: damaged or cut short" in reasons["3"]
    rows = rows_of(f"{tmp_path}/shards")
    assert {(row["set"], row["task"], row["split"]) for row in rows} == {
        ("ISTD", "shadow", "train"),
        ("ISTD", "shadow", "test"),
    }
    assert all(row["mask"] == mask for row in rows)

    only = ingest(IngestConfig(f"{tmp_path}/ISTD", f"{tmp_path}/only", layout="istd", split="test"))
    assert (only.rows, only.left_out) == ({"test": 3}, [])
    with pytest.raises(ValueError, match="has no split val, only test, train"):
        ingest(IngestConfig(f"{tmp_path}/ISTD", f"{tmp_path}/only", layout="istd", split="val"))


def test_what_nobody_foresaw_is_told_of_its_pair(cluster, source, monkeypatch):
    def failing(files, *how):
        raise KeyError(files.key)

    monkeypatch.setattr(pairs, "read_rows", failing)
    (row,) = pairs._rows_of_item(
        {"files": asdict(find(IngestConfig(source, "shards")).pairs[0])}, Quarantine()
    )
    assert row["key"] == "0"
    assert "unforeseen KeyError: '0'" in row["error"]


def test_a_root_of_several_sets_keeps_their_names(cluster, photos, tmp_path):
    picture = encode_png(photos[0][:20, :20])
    for folder in ("train/Rain13K", "test/Test100", "test/Rain100L"):
        for side, name in itertools.product(("input", "target"), "ab"):
            storage.write_bytes(f"{tmp_path}/{folder}/{side}/{name}.png", picture)
    config = IngestConfig(str(tmp_path), f"{tmp_path}/shards", layout="rain13k", limit=1)
    assert ingest(config).rows == {"train": 1, "test": 2}
    assert {row["set"] for row in rows_of(f"{tmp_path}/shards", "test")} == {"Test100", "Rain100L"}
    assert {row["set"] for row in rows_of(f"{tmp_path}/shards", "train")} == {"Rain13K"}
    # Without the layout, test pictures could not be told from training ones.
    with pytest.raises(ValueError, match=r"several folders of pairs .Rain100L, Rain13K, Test100.*--layout"):
        ingest(replace(config, layout="folders"))


def test_large_training_pictures_are_cut_into_tiles(cluster, photos, tmp_path):
    degraded, clean = photos[0][:70, :150], photos[1][:70, :150]
    mask = clean[..., 0] > 100
    for split, name in (("train", "1-1.png"), ("train", "small.png"), ("test", "1-1.png")):
        cut = np.s_[:20, :30] if name == "small.png" else np.s_[:]
        for side, pixels in (("A", degraded), ("B", mask), ("C", clean)):
            storage.write_bytes(f"{tmp_path}/{split}/{split}_{side}/{name}", encode_png(pixels[cut]))
    config = IngestConfig(str(tmp_path), f"{tmp_path}/tiles", layout="istd", tile=64, tile_overlap=16)
    assert ingest(config).rows == {"train": 2 * 3 + 1, "test": 1}
    (whole,) = rows_of(f"{tmp_path}/tiles", "test")
    assert (whole["key"], whole["width"]) == ("1-1", 150)
    tiles = {row["key"]: row for row in rows_of(f"{tmp_path}/tiles", "train")}
    small = tiles.pop("small")
    assert small["input"] == encode_png(degraded[:20, :30])
    places = {(top, left) for top in (0, 6) for left in (0, 48, 86)}
    assert tiles.keys() == {f"1-1/y{top:04}x{left:04}" for top, left in places}
    for top, left in places:
        row = tiles[f"1-1/y{top:04}x{left:04}"]
        cut = np.s_[top : top + 64, left : left + 64]
        example = shards.decode_example(row)
        assert (row["height"], row["width"]) == (64, 64)
        np.testing.assert_array_equal(example.degraded, degraded[cut])
        np.testing.assert_array_equal(example.clean, clean[cut])
        np.testing.assert_array_equal(example.mask, mask[cut])


def test_a_dry_run_says_what_is_there_and_writes_nothing(tmp_path, capsys):
    for name in ("train/data/0_rain", "train/gt/0_clean", "train/data/1_rain", "test_a/gt/0_clean"):
        storage.write_bytes(f"{tmp_path}/{name}.png", b"never opened")
    before = sorted(tmp_path.rglob("*"))
    main(IngestConfig(str(tmp_path), f"{tmp_path}/shards", layout="agan", dry_run=True))
    assert capsys.readouterr().out.splitlines() == [
        "AGAN train: 1 pair",
        "  left out: train/data/1_rain.png: has no partner among the clean pictures",
        "AGAN-a test: no pairs",
        "  left out: test_a/gt/0_clean.png: has no partner among the degraded pictures",
        "AGAN-b test: nothing is there",
        "dry run: nothing was written",
    ]
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(ValueError, match="dry run writes nothing"):
        ingest(IngestConfig(str(tmp_path), f"{tmp_path}/shards", layout="agan", dry_run=True))
    with pytest.raises(StorageError, match="this looks like --layout agan"):
        main(IngestConfig(str(tmp_path), layout="gopro", dry_run=True))


def test_clips_become_frames_with_those_around_them(cluster, photos, tmp_path):
    for name in ("a", "b"):
        frames = [np.roll(photos[0][:48, :64], 2 * k, axis=1) for k in range(60)]
        make_clip(tmp_path / f"{name}.mp4", frames)
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:3000])
    config = IngestConfig(str(tmp_path), str(tmp_path / "shards"), layout="clips", every=1.0)
    report = ingest(config)
    assert report.rows == {"train": 6}
    assert [name for name, _ in report.left_out] == ["cut"]
    rows = [
        row
        for group in shards.list_row_groups([str(tmp_path / "shards")])
        for row in shards.read_row_group(group)
    ]
    assert {row["task"] for row in rows} == {"rain+raindrop"}
    assert all(shards.decode_example(row).window is not None for row in rows)


SCENES = {
    "gopro": [
        f"train/GOPR{s}/{side}/{k:06}.png" for s in range(20) for side in ("blur", "sharp") for k in range(5)
    ],
    "hide": [f"{side}/{k}fromGOPR{s}.png" for s in range(20) for side in ("train", "GT") for k in range(5)],
    "istd": [f"train/train_{side}/{s}-{k}.png" for s in range(20) for side in "ABC" for k in range(5)],
    "folders": [f"{side}/{s}/{k}.png" for s in range(20) for side in ("input", "target") for k in range(5)],
}


@pytest.mark.parametrize("layout", SCENES)
def test_what_shows_the_same_is_held_out_together(layout, tmp_path):
    """Neighbouring frames are all but the same: learnt from, they would be no test."""
    for name in SCENES[layout]:
        storage.write_bytes(f"{tmp_path}/set/{name}", b"never opened")
    config = IngestConfig(str(tmp_path), layout=layout, dry_run=True, validation_share=0.2)
    scenes = {split: {scene_of(files) for files in find(config).of_split(split).pairs} for split in SPLITS}
    assert 1 <= len(scenes["val"]) <= 8
    assert not scenes["val"] & scenes["train"]
    few = find(replace(config, validation_share=1e-9)).of_split("val").pairs
    assert len({scene_of(files) for files in few}) == 1


SPLITS = ("train", "val")


def scene_of(files):
    return re.search(r"GOPR\d+|/train_C/\d+|target/\d+", files.target)[0]


def test_pictures_by_themselves_are_held_out_one_by_one(tmp_path):
    """Also those of a set's only folder, of which no other can be held out."""
    for folder, layout in (("input", "folders"), ("input/only", "folders"), ("any", "clean")):
        for side, k in itertools.product((folder, folder.replace("input", "target")), range(50)):
            storage.write_bytes(f"{tmp_path}/{layout}/{folder}/set/{side}/{k}.png", b"never opened")
        source = f"{tmp_path}/{layout}/{folder}/set"
        config = IngestConfig(source, layout=layout, dry_run=True, validation_share=0.2)
        assert 4 <= len(find(config).of_split("val").pairs) <= 20
