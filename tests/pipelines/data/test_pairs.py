from collections import Counter

import numpy as np
import pytest

from pipelines.data import layouts, pairs, shards
from pipelines.data.layouts import PairFiles
from pipelines.data.pairs import Tiling, read_rows
from pipelines.services import storage
from spair_core.images import PictureError, encode_png
from tests.pipelines.media.test_clips import make_clip


def row(key, of_set, split):
    picture = encode_png(np.zeros((8, 8, 3), np.uint8))
    parts = {"input": picture, "target": picture, "mask": None}
    labels = {"task": "rain", "set": of_set, "split": split, "source": key}
    digest = shards.row_digest([key.encode()])
    return {"key": key, **parts, "height": 8, "width": 8, **labels, "digest": digest}


def test_tiles_have_their_full_size_and_cover_every_crop():
    for length, size, overlap in ((100, 64, 32), (1280, 512, 256), (64, 64, 0), (65, 64, 63), (30, 64, 8)):
        starts = Tiling(size, overlap).starts(length)
        assert starts == sorted(set(starts))
        assert starts[-1] + size == max(length, size)
        crops = range(max(length - overlap, 0) + 1)
        assert all(any(at <= crop and crop + overlap <= at + size for at in starts) for crop in crops)


def test_examples_come_from_folders_in_any_layout(tmp_path):
    for split, n in (("train", 3), ("test", 2)):
        for i in range(n):
            for side in ("A", "B", "C"):
                storage.write_bytes(f"{tmp_path}/ISTD/{split}/{split}_{side}/{i}.png", b"")
    storage.write_bytes(f"{tmp_path}/ISTD/test/test_A/lone.png", b"")
    items = pairs.list_examples([f"{tmp_path}/ISTD"], layout="istd")
    assert [item["files"]["split"] for item in items if "files" in item] == ["test", "test"]
    assert [item["left_out"]["name"] for item in items if "left_out" in item] == ["test/test_A/lone.png"]
    only_train = pairs.list_examples([f"{tmp_path}/ISTD/train"], layout="istd", limit=2)
    assert [item["files"]["key"] for item in only_train] == ["0", "1"]


def test_folders_of_pairs_are_limited_each_by_itself(tmp_path):
    for name in ("a/set", "b/set"):
        for i in range(3):
            for side in ("input", "target"):
                storage.write_bytes(f"{tmp_path}/{name}/{side}/{i}.png", b"")
    items = pairs.list_examples([str(tmp_path)], limit=2)
    assert Counter(item["files"]["set"] for item in items) == {"a/set": 2, "b/set": 2}
    assert {item["files"]["split"] for item in items} == {"test"}


def test_of_shards_with_a_test_split_only_that_is_judged(tmp_path):
    sets = [("x", "train", 20), ("x", "test", 20), ("y", "test", 20)]
    written = [
        shards.write_shard(str(tmp_path), [row(f"{split}{i}", name, split) for i in range(n)])
        for name, split, n in sets
    ]
    shards.commit(str(tmp_path), written, {})
    items = pairs.list_examples([str(tmp_path)])
    assert sum(item["group"]["rows"] for item in items) == 40
    limited = pairs.list_examples([str(tmp_path)], limit=3)
    assert [item["group"]["rows"] for item in limited] == [16, 16]
    names = {shards.read_row_group(shards.RowGroup(**item["group"]))[0]["set"] for item in limited}
    assert names == {"x", "y"}


def test_the_picture_that_is_broken_is_named(tmp_path):
    good = encode_png(np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8))
    for name, data in (
        ("good.png", good),
        ("cut.png", good[:150]),
        ("odd.png", encode_png(np.zeros((8, 8), bool))),
    ):
        storage.write_bytes(f"{tmp_path}/{name}", data)

    def read(degraded, clean, mask=None):
        uris = [name and f"{tmp_path}/{name}.png" for name in (clean, degraded, mask)]
        return list(pairs.read_rows(PairFiles("k", "rain", "s", "train", *uris)))

    (whole,) = read("good", "good")
    assert (whole["input"], whole["mask"], whole["width"]) == (good, None, 9)
    for files, words in (
        (("cut", "good"), "cut.png: damaged or cut short"),
        (("good", "cut"), "cut.png: damaged or cut short"),
        (("good", "good", "cut"), "cut.png: damaged or cut short"),
        (("good", "odd"), "good.png: the degraded picture is 9x8, the clean picture 8x8"),
        (("good", "good", "odd"), "good.png: the mask is 8x8, the clean picture 9x8"),
    ):
        with pytest.raises(PictureError, match=words):
            read(*files)


@pytest.fixture
def drive(photos, tmp_path):
    frames = [np.roll(photos[0][:48, :64], 2 * k, axis=1) for k in range(70)]
    for name, side in (("input", [np.minimum(f, 205) + 50 for f in frames]), ("target", frames)):
        (tmp_path / name).mkdir()
        make_clip(tmp_path / name / "drive.mp4", [f.astype(np.uint8) for f in side])
    return tmp_path


def test_a_clip_gives_a_row_every_so_many_seconds_with_what_its_frame_needs(drive):
    files = PairFiles("drive", "rain+raindrop", "drives", "train", str(drive / "target/drive.mp4"))
    rows = list(read_rows(files, every=1.0))
    assert [row["key"] for row in rows] == ["drive/000000", "drive/000025", "drive/000050"]
    example = shards.decode_example(rows[1])
    assert example.degraded is None
    assert example.window.pixels[example.window.own[0]].tobytes() == example.clean.tobytes()
    assert len(example.window.neighbours[0]) == 4
    assert len(example.window.beats[0]) >= 5
    assert len({row["digest"] for row in rows}) == 3


def test_frames_travel_through_a_shard(drive, tmp_path):
    files = PairFiles("drive", "rain+raindrop", "drives", "train", str(drive / "target/drive.mp4"))
    rows = list(read_rows(files, every=0.25))
    shard = shards.write_shard(str(tmp_path / "shards"), rows)
    shards.commit(str(tmp_path / "shards"), [shard], {})
    (group,) = shards.list_row_groups([str(tmp_path / "shards")])
    for row, kept in zip(rows, shards.read_row_group(group), strict=True):
        before, after = shards.decode_example(row).window, shards.decode_example(kept).window
        assert (before.pixels == after.pixels).all()
        assert (before.own, before.neighbours, before.beats) == (after.own, after.neighbours, after.beats)
    judged = [shards.judged_example(row, 0.05) for row in rows]
    assert any(example.mask.any() for example, _ in judged)  # weather may leave one frame as it is
    for example, degraded in judged:
        assert (example.shown.pixels[example.shown.own[0]] == degraded).all()


def test_pairs_of_clips_are_seen_degraded_beside_their_clean_frames(drive):
    listing = layouts.find([str(drive)], "clip-pairs")
    (files,) = listing.pairs
    example = shards.decode_example(next(read_rows(files)))
    assert abs(float(example.degraded.mean()) - float(example.clean.mean())) > 20
    assert (example.window.pixels[example.window.own[0]] == example.degraded).all()
    assert abs(float(example.window.pixels.mean()) - float(example.degraded.mean())) < 3


def test_tiles_of_frames_are_cut_at_one_place(drive):
    files = PairFiles("drive", "rain", "drives", "train", str(drive / "target/drive.mp4"))
    whole = shards.decode_example(next(read_rows(files)))
    tiles = [shards.decode_example(row) for row in read_rows(files, Tiling(40, 16), every=9)]
    assert [tile.clean.shape for tile in tiles] == [(40, 40, 3)] * 4
    assert np.abs(tiles[3].clean.astype(int) - whole.clean[8:, 24:]).mean() < 3
    assert tiles[3].window.pixels.shape[1:] == (40, 40, 3)


def test_clips_that_do_not_belong_together_are_told(drive, photos):
    make_clip(drive / "input/drive.mp4", [photos[0][:48, :64]] * 20)
    (files,) = layouts.find([str(drive)], "clip-pairs").pairs
    with pytest.raises(PictureError, match=r"input/drive.mp4: it has no frame 20, which the clean clip"):
        list(read_rows(files))
    make_clip(drive / "input/drive.mp4", [photos[0][:32, :64]] * 70)
    with pytest.raises(PictureError, match="its frames are"):
        list(read_rows(files))
