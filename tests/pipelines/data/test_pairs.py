from collections import Counter

import numpy as np
import pytest

from pipelines.data import pairs, shards
from pipelines.data.layouts import PairFiles
from pipelines.data.pairs import Tiling
from pipelines.services import storage
from spair_core.images import PictureError, encode_png


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
