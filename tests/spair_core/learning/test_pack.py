import json
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image

from spair_core.learning import pack
from spair_core.learning.pack import PackError, read_pack, write_pack


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A folder with a photograph of each kind, a folder of pairs, and a clip of 12 frames."""
    folder = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (96, 64))
    Image.fromarray(smooth).save(folder / "a.jpg", quality=90)
    Image.fromarray(smooth).convert("L").save(folder / "b.png")
    for side, shift in (("input", 30), ("target", 0)):
        (folder / "pairs" / side).mkdir(parents=True)
        Image.fromarray(np.clip(smooth.astype(int) + shift, 0, 255).astype(np.uint8)).save(
            folder / "pairs" / side / "one.png"
        )
    writer = cv2.VideoWriter(str(folder / "drive.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (96, 64))
    for step in range(12):
        writer.write(np.roll(smooth, step, axis=1)[..., ::-1])
    writer.release()
    return folder


def test_what_goes_in_comes_out(material, tmp_path):
    path = tmp_path / "footage.zip"
    size = write_pack(
        path,
        [material / "a.jpg", material / "b.png"],
        [("rain", material / "pairs")],
        [material / "drive.mp4"],
    )
    assert size == path.stat().st_size
    found = read_pack(path)
    assert [photo.shape for photo in found.photographs] == [(64, 96, 3)] * 2
    assert (found.photographs[0] == np.asarray(Image.open(material / "a.jpg"))).all()
    ((task, pair),) = found.pairs
    target = np.asarray(Image.open(material / "pairs" / "target" / "one.png")).astype(int)
    assert task == "rain"
    assert np.abs(pair.clean - target).mean() < 2
    assert (pair.degraded.astype(int) - pair.clean).mean() == pytest.approx(30, abs=6)
    (clip,) = found.clips
    assert (len(clip.frames), clip.rate) == (12, 25)
    assert np.abs(clip.frames[0].astype(int) - found.photographs[0]).mean() < 8


def test_shapes_of_shadows_and_shakes_of_cameras_are_carried(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[:, 10:] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    kernels = {"a": np.eye(5), "b": np.ones((1, 3)) / 3}
    np.savez(tmp_path / "k.npz", **kernels)
    write_pack(tmp_path / "p.zip", shadow_masks=[tmp_path / "m.png"], shakes=tmp_path / "k.npz")
    found = read_pack(tmp_path / "p.zip")
    (shadow,) = found.shadow_masks
    assert (shadow == (mask > 127)).all()
    assert [kernel.tolist() for kernel in found.shakes] == [kernel.tolist() for kernel in kernels.values()]


def test_large_photographs_are_made_smaller(material, tmp_path):
    path = tmp_path / "footage.zip"
    write_pack(path, [material / "a.jpg"], longest=48)
    assert read_pack(path).photographs[0].shape == (32, 48, 3)


@pytest.mark.parametrize("name", ["absent.zip", "text.zip", "other.zip", "older.zip"])
def test_what_is_no_pack_is_named(tmp_path, name):
    (tmp_path / "text.zip").write_text("no archive")
    for other, record in (("other.zip", None), ("older.zip", {"version": 0, "entries": []})):
        with zipfile.ZipFile(tmp_path / other, "w") as archive:
            archive.writestr("pack.json" if record else "something", json.dumps(record))
    with pytest.raises(PackError, match=name):
        read_pack(tmp_path / name)


def test_what_cannot_go_in_is_named(material, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(PackError, match=r"broken\.jpg: is not a picture"):
        write_pack(tmp_path / "p.zip", [tmp_path / "broken.jpg"])
    with pytest.raises(PackError, match=r"broken\.jpg: is no mask of shadows"):
        write_pack(tmp_path / "p.zip", shadow_masks=[tmp_path / "broken.jpg"])
    with pytest.raises(PackError, match=r"broken\.jpg: is no NPZ file of blur kernels"):
        write_pack(tmp_path / "p.zip", shakes=tmp_path / "broken.jpg")
    (tmp_path / "half" / "input").mkdir(parents=True)
    with pytest.raises(PackError, match="no pictures in input/"):
        write_pack(tmp_path / "p.zip", pairs=[("rain", tmp_path / "half")])
    (tmp_path / "half" / "input" / "one.png").touch()
    with pytest.raises(PackError, match=r"target/one\.png is missing"):
        write_pack(tmp_path / "p.zip", pairs=[("rain", tmp_path / "half")])
    write_pack(tmp_path / "p.zip", clips=[tmp_path / "broken.jpg"])
    with pytest.raises(PackError, match="OpenCV reads no frames"):
        read_pack(tmp_path / "p.zip")


def test_the_command_says_how_large_it_is_and_what_is_wrong(material, tmp_path, capsys):
    path = str(tmp_path / "p.zip")
    pack.main([path, "--photographs", str(material / "a.jpg"), "--pairs", f"rain={material / 'pairs'}"])
    assert "MiB" in capsys.readouterr().out
    for flags in (["--pairs", "rain"], ["--photographs", str(tmp_path / "absent.jpg")]):
        with pytest.raises(SystemExit) as ended:
            pack.main([path, *flags])
        assert ended.value.code != 0
        assert {"--pairs": "TASK=FOLDER", "--photographs": "absent.jpg"}[flags[0]] in capsys.readouterr().err
