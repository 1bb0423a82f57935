"""Tiny trees with the exact layouts of the sets' owners; their files are empty, for only names are read."""

from pathlib import Path

import pytest

from pipelines.data import layouts
from pipelines.data.layouts import LAYOUTS
from pipelines.services import storage
from pipelines.services.storage import NothingStoredError, StorageError

REALBLUR = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
GOPRO = "GOPR0372_07_00"
TREES: dict[str, list[str]] = {
    "folders": ["input/1.png", "target/1.jpg", "mask/1.png", "input/a/2.PNG", "target/a/2.png"],
    "clean": ["a.jpg", "b/a.jpg"],
    "clips": ["a.mp4", "b/a.mkv"],
    "clip-pairs": ["input/1.mp4", "target/1.mov"],
    "rain13k": [
        *(f"train/Rain13K/{side}/{i}.jpg" for side in ("input", "target") for i in (1, 2)),
        *(
            f"test/{name}/{side}/1.png"
            for name in ("Test100", "Rain100H", "Rain100L", "Test1200", "Test2800")
            for side in ("input", "target")
        ),
    ],
    "rain100h-original": [
        *(f"train/{name}/norain-{i}{x}.png" for name, x in (("rain", "x2"), ("norain", "")) for i in (1, 12)),
        "test/rainy/rain-001.png",
        "test/norain-001.png",
    ],
    "rain100l-original": [
        *(f"train/{name}-{i}.png" for name in ("rain", "norain") for i in (1, 2)),
        "test/rain/rain-100.png",
        "test/norain/norain-100.png",
    ],
    "spa": [
        "real_world.txt",
        *(f"real_world/{side}/000-1_{i}.png" for side in ("rainy", "gt") for i in (0, 1)),
        "real_test_1000/rain/001rain.png",
        "real_test_1000/gt/001gt.png",
    ],
    "agan": [
        f"{folder}/{side}.{ending}"
        for folder, ending in (("train", "png"), ("test_a", "png"), ("test_b", "jpg"))
        for side in ("data/0_rain", "gt/0_clean")
    ],
    "istd": [f"{split}/{split}_{x}/1-1.png" for split in ("train", "test") for x in "ABC"],
    "gopro": [
        f"{split}/{GOPRO}/{side}/000047.png"
        for split in ("train", "test")
        for side in ("blur", "blur_gamma", "sharp")
    ],
    "hide": [
        "test/test-close-ups/1fromGOPR0950.png",
        "test/test-long-shot/2fromGOPR0950.png",
        "train/3fromGOPR0950.png",
        *(f"GT/{i}fromGOPR0950.png" for i in (1, 2, 3)),
    ],
    "realblur-j": [
        *(f"RealBlur_J_{split}_list.txt" for split in ("train", "test")),
        *(f"{REALBLUR}/scene00{i}/{side}/{side}_1.png" for i in (1, 2) for side in ("gt", "blur")),
    ],
}
TREES["gopro-gamma"] = TREES["gopro"]
LISTS = {
    "real_world.txt": "\n".join(
        f"/real_world/rainy/000-1_{i}.png /real_world/gt/000-1_{i}.png" for i in (0, 1)
    ),
    **{
        f"RealBlur_J_{split}_list.txt": f"{scene}/gt/gt_1.png {scene}/blur/blur_1.png x\n"
        for scene, split in ((f"{REALBLUR}/scene001", "train"), (f"{REALBLUR}/scene002", "test"))
    },
}
EXPECTED = {
    "folders": {("set", "train", "1"), ("set", "train", "a/2")},
    "clean": {("set", "train", "a"), ("set", "train", "b/a")},
    "clips": {("set", "train", "a"), ("set", "train", "b/a")},
    "clip-pairs": {("set", "train", "1")},
    "rain13k": {
        ("Rain13K", "train", "1"),
        ("Rain13K", "train", "2"),
        *((name, "test", "1") for name in ("Test100", "Rain100H", "Rain100L", "Test1200", "Test2800")),
    },
    "rain100h-original": {
        ("Rain100H-original", "train", "1"),
        ("Rain100H-original", "train", "12"),
        ("Rain100H-original", "test", "1"),
    },
    "rain100l-original": {
        ("Rain100L-original", "train", "1"),
        ("Rain100L-original", "train", "2"),
        ("Rain100L-original", "test", "100"),
    },
    "spa": {
        ("SPA", "train", "real_world/rainy/000-1_0"),
        ("SPA", "train", "real_world/rainy/000-1_1"),
        ("SPA", "test", "001"),
    },
    "agan": {("AGAN", "train", "0"), ("AGAN-a", "test", "0"), ("AGAN-b", "test", "0")},
    "istd": {("ISTD", "train", "1-1"), ("ISTD", "test", "1-1")},
    "gopro": {("GoPro", split, f"{GOPRO}/000047") for split in ("train", "test")},
    "gopro-gamma": {("GoPro-gamma", split, f"{GOPRO}/000047") for split in ("train", "test")},
    "hide": {
        ("HIDE", "test", "1fromGOPR0950"),
        ("HIDE", "test", "2fromGOPR0950"),
        ("HIDE", "train", "3fromGOPR0950"),
    },
    "realblur-j": {
        ("RealBlur-J", "train", f"{REALBLUR}/scene001/blur/blur_1"),
        ("RealBlur-J", "test", f"{REALBLUR}/scene002/blur/blur_1"),
    },
}
TASKS = {"agan": "raindrop", "istd": "shadow", "clips": "rain+raindrop"} | dict.fromkeys(
    ("gopro", "gopro-gamma", "hide", "realblur-j"), "blur"
)


def plant(root: Path, names: list[str]) -> str:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LISTS.get(name, ""))
    return str(root)


def labels(listing: layouts.Listing) -> set[tuple[str, str, str]]:
    return {(files.set, files.split, files.key) for files in listing.pairs}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_set_is_read_as_its_owners_ship_it(name, tmp_path):
    root = plant(tmp_path / "set", TREES[name])
    listing = layouts.find([root], name)
    assert labels(listing) == EXPECTED[name]
    assert len(listing.pairs) == len(EXPECTED[name])
    assert listing.left_out == []
    assert {files.task for files in listing.pairs} == {TASKS.get(name, "rain")}
    for files in listing.pairs:
        assert Path(files.target).is_file()
        assert (files.input is None) == (name in ("clean", "clips"))
        assert files.input is None or Path(files.input).is_file()


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in ("clean", "clips")])
def test_the_source_may_be_the_folder_that_holds_a_set(name, tmp_path):
    plant(tmp_path / "set", TREES[name])
    listing = layouts.find([str(tmp_path)], name)
    assert {label[:2] for label in labels(listing)} == {label[:2] for label in EXPECTED[name]}
    assert len(listing.pairs) == len(EXPECTED[name])


def test_the_sides_are_not_confused(tmp_path):
    def sides(name, key):
        root = plant(tmp_path / name, TREES[name])
        (files,) = [files for files in layouts.find([root], name).pairs if files.key.endswith(key)][-1:]
        places = (files.input, files.target, files.mask)
        return tuple(None if place is None else str(Path(place).relative_to(root)) for place in places)

    assert sides("istd", "1-1") == ("test/test_A/1-1.png", "test/test_C/1-1.png", "test/test_B/1-1.png")
    assert sides("gopro-gamma", "47") == (
        f"test/{GOPRO}/blur_gamma/000047.png",
        f"test/{GOPRO}/sharp/000047.png",
        None,
    )
    assert sides("realblur-j", "1") == (
        f"{REALBLUR}/scene002/blur/blur_1.png",
        f"{REALBLUR}/scene002/gt/gt_1.png",
        None,
    )
    assert sides("rain100h-original", "12") == (
        "train/rain/norain-12x2.png",
        "train/norain/norain-12.png",
        None,
    )
    assert sides("rain100l-original", "2")[:2] == ("train/rain-2.png", "train/norain-2.png")
    assert sides("spa", "001")[:2] == ("real_test_1000/rain/001rain.png", "real_test_1000/gt/001gt.png")


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("gopro", "train", {("GoPro", "train", f"{GOPRO}/000047")}),
        ("gopro", f"test/{GOPRO}", {("GoPro", "test", f"{GOPRO}/000047")}),
        ("istd", "test", {("ISTD", "test", "1-1")}),
        ("agan", "test_b", {("AGAN-b", "test", "0")}),
        ("rain13k", "test/Test100", {("Test100", "test", "1")}),
        ("rain13k", "train/Rain13K", {("Rain13K", "train", "1"), ("Rain13K", "train", "2")}),
        ("spa", "real_test_1000", {("SPA", "test", "001")}),
    ],
)
def test_a_folder_of_a_set_may_be_the_source(name, source, expected, tmp_path):
    plant(tmp_path, TREES[name])
    assert labels(layouts.find([f"{tmp_path}/{source}/"], name)) == expected


def test_endings_and_case_may_differ(tmp_path):
    names = ["Train/DATA/3_rain.JPG", "Train/gt/3_clean.png"]
    assert labels(layouts.find([plant(tmp_path, names)], "agan")) == {("AGAN", "train", "3")}


def test_what_makes_no_pair_is_named(tmp_path):
    names = [
        *TREES["istd"],
        *("train/train_A/2.png", "train/train_C/3.png", "train/train_B/4.png"),
        *("train/train_A/5.png", "train/train_A/5.jpg", "train/train_C/5.png"),
        *("test/test_A/Thumbs.db", "preview.png"),
    ]
    listing = layouts.find([plant(tmp_path, names)], "istd")
    assert labels(listing) == EXPECTED["istd"]
    reasons = {item.name: item.reason for item in listing.left_out}
    assert reasons == {
        "train/train_A/2.png": "has no partner among the clean pictures",
        "train/train_C/3.png": "has no partner among the degraded pictures",
        "train/train_B/4.png": "has no partner among the degraded and clean pictures",
        "train/train_A/5.png": "shares its name with train/train_A/5.jpg",
        "train/train_A/5.jpg": "shares its name with train/train_A/5.png",
        "train/train_C/5.png": "has no partner among the degraded pictures",
        "test/test_A/Thumbs.db": "not a picture by its ending",
    }
    assert listing.others == ["preview.png"]
    summary = listing.summary()
    assert "ISTD train: 1 pair, 1 mask\n" in summary
    assert "  left out: 1 more" in summary
    assert "outside the layout: 1, such as preview.png" in summary


def test_pairs_that_lack_their_mask_are_named(tmp_path):
    more = [f"test/test_{x}/{i}.png" for x in "AC" for i in (2, 3)]
    summary = layouts.find([plant(tmp_path, TREES["istd"] + more)], "istd").summary()
    assert "ISTD test: 3 pairs, 1 mask\n  without a mask, so it follows from the pair: 2, 3\n" in summary
    assert summary.endswith("ISTD train: 1 pair, 1 mask")


def test_lines_of_a_list_that_are_wrong_are_named(tmp_path):
    root = Path(plant(tmp_path, TREES["spa"]))
    good = "./real_world/rainy/000-1_0.png real_world/gt/000-1_0.png"
    lines = [
        good,
        "",
        good,
        "alone.png",
        "real_world/rainy/9.png real_world/gt/000-1_1.png",
        "../a.png /etc/b.png",
    ]
    (root / "real_world.txt").write_text("\n".join(lines))
    listing = layouts.find([str(root)], "spa").of_split("train")
    assert [files.key for files in listing.pairs] == ["real_world/rainy/000-1_0"]
    assert {item.name: item.reason for item in listing.left_out} == {
        "real_world.txt:3": "lists real_world/rainy/000-1_0.png again",
        "real_world.txt:4": "is no line of the paths: degraded clean",
        "real_world.txt:5": "lists real_world/rainy/9.png, not there",
        "real_world.txt:6": "lists ../a.png and etc/b.png, not there",
    }


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in ("folders", "clean", "clips")])
def test_a_wrong_layout_is_answered_with_the_right_one(name, tmp_path):
    root = plant(tmp_path, TREES[name])
    wrong = "istd" if name == "agan" else "agan"
    with pytest.raises(StorageError) as raised:
        layouts.find([root], wrong)
    message = str(raised.value)
    assert LAYOUTS[wrong].example in message
    assert any(file in message for file in TREES[name])
    fits = message.partition("this looks like --layout ")[2].split(" or ")
    assert name in fits
    assert wrong not in fits


@pytest.mark.parametrize(("files", "right"), [(["a.jpg"], "clean"), (["b/a.mp4"], "clips"), (["a.txt"], "")])
def test_what_has_no_partners_is_sent_to_the_layouts_of_such(files, right, tmp_path):
    with pytest.raises(StorageError) as raised:
        layouts.find([plant(tmp_path, files)], "folders")
    told = str(raised.value).partition("what has no partners is for --layout ")[2]
    assert told == right


def test_a_half_of_a_set_is_refused_with_what_lacks(tmp_path):
    root = plant(tmp_path, [name for name in TREES["agan"] if "/gt/" not in name])
    with pytest.raises(StorageError, match=r"data/0_rain\.png: has no partner among the clean pictures"):
        layouts.find([root], "agan")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingStoredError, match="it holds no files"):
        layouts.find([f"{tmp_path}/empty"], "agan")


def test_folders_of_one_name_stay_apart(tmp_path):
    pair = ["input/1.png", "target/1.png"]
    for folder in ("a/Rain100L", "b/Rain100L", "b/c/Rain100L", "b/other"):
        plant(tmp_path / folder, pair)
    found = layouts.find([str(tmp_path), f"{tmp_path}/"])
    assert [files.set for files in found.pairs] == ["a/Rain100L", "b/Rain100L", "c/Rain100L", "other"]
    found = layouts.find([f"{tmp_path}/a/Rain100L", f"{tmp_path}/b/Rain100L"])
    assert labels(found) == {("a/Rain100L", "train", "1"), ("b/Rain100L", "train", "1")}


@pytest.mark.parametrize(
    ("name", "scenes"),
    [
        ("gopro", {GOPRO}),
        ("gopro-gamma", {f"set/{GOPRO}"}),
        ("realblur-j", {f"{REALBLUR}/scene00{i}/blur" for i in (1, 2)}),
        ("spa", {"000", "001"}),
        ("hide", {"GOPR0950"}),
        ("istd", {"1"}),
        ("folders", {"1", "a"}),
        ("agan", {"0"}),
        ("clips", {"a", "b/a"}),
    ],
)
def test_what_shows_the_same_is_told_by_its_name(name, scenes, tmp_path):
    above = name == "gopro-gamma"
    root = plant(tmp_path / "set", TREES[name])
    found = layouts.find([str(tmp_path) if above else root], name)
    assert {LAYOUTS[name].scene_of(files.key) for files in found.pairs} == scenes


def test_one_split_may_be_preferred(tmp_path):
    root = plant(tmp_path / "a", TREES["gopro"])
    only_train = plant(tmp_path / "b", [name for name in TREES["gopro"] if name.startswith("train")])
    found = layouts.find([root, only_train], "gopro", prefer="test")
    assert [files.split for files in found.pairs] == ["test", "train"]


def test_a_store_is_read_as_a_folder_is(s3):
    for name in TREES["realblur-j"]:
        storage.write_bytes(f"{s3}/{name}", LISTS.get(name, "").encode())
    found = layouts.find([s3], "realblur-j")
    assert labels(found) == EXPECTED["realblur-j"]
    assert found.pairs[0].input == f"{s3}/{REALBLUR}/scene001/blur/blur_1.png"
