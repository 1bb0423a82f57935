"""Files that are restored in this process, and what someone names to be."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.media import EncodeConfig, tables
from pipelines.restoration.here import named
from pipelines.restoration.here.local import Local, Targets, seconds_of
from pipelines.restoration.manifest import FAILED, PASSED, REJECTED, RESTORED
from pipelines.restoration.restore import RestoreConfig, restore
from pipelines.restoration.settings import Settings
from pipelines.services import storage
from spair_core import inference, weights
from spair_core.network import Spair
from tests.pipelines.media.samples import encoded, make_archive, make_table
from tests.pipelines.media.test_clips import make_clip, sound, times


@pytest.fixture
def settings(tmp_path, tiny_weights):
    (tmp_path / "model").write_bytes(tiny_weights)
    return Settings(model=str(tmp_path / "model"), precision="float32")


@pytest.fixture
def local(settings):
    return Local(settings, "cpu")


@pytest.fixture
def source(tmp_path, photos):
    folder = tmp_path / "source"
    folder.mkdir()
    frames = [np.roll(photos[0][:48, :64], k, axis=1) for k in range(40)]
    make_clip(folder / "clip.mp4", frames, sound=True)
    make_archive(folder / "photos.zip", {"a.png": encoded(frames[0]), "b.png": b"nonsense", "c.txt": b"text"})
    (folder / "photo.png").write_bytes(encoded(frames[0]))
    return folder


@pytest.mark.cluster
def test_files_come_out_as_those_of_a_restoration(cluster, source, local, settings, mlflow_store, tmp_path):
    destination = tmp_path / "dry"
    restore(RestoreConfig(str(source), str(destination), model=settings.model, precision="float32", panels=0))
    for path in source.iterdir():
        target = tmp_path / "here" / path.name
        assert local.restore(path, Targets(str(target))).verdict == RESTORED
        assert target.read_bytes() == (destination / path.name).read_bytes(), path.name


def test_a_clip_keeps_its_sound_and_times(source, local, tmp_path):
    told = []
    target = tmp_path / "out.mp4"
    outcome = local.restore(source / "clip.mp4", Targets(str(target)), lambda *piece: told.append(piece))
    assert (outcome.verdict, outcome.frames, outcome.compared) == (RESTORED, 40, False)
    assert [frames for frames, _ in told] == [32, 40]
    assert times(target) == times(source / "clip.mp4")
    assert sound(target) == sound(source / "clip.mp4")
    assert seconds_of(source / "clip.mp4") == pytest.approx(told[-1][1], abs=0.2)
    assert seconds_of(source / "photo.png") is None


def test_notes_say_what_was_damaged(source, local, tmp_path):
    outcome = local.restore(source / "photos.zip", Targets(str(tmp_path / "out.zip")))
    assert outcome.verdict == RESTORED
    assert any(note.startswith("b.png: copied as it was") for note in outcome.notes)


def test_what_holds_nothing_is_copied_with_a_note(local, tmp_path):
    path = make_archive(tmp_path / "texts.tar", {"c.txt": b"text"})
    outcome = local.restore(path, Targets(str(tmp_path / "out.tar"), str(tmp_path / "compare.tar")))
    assert outcome.verdict == PASSED
    assert "it holds no pictures or clips" in outcome.notes
    assert (tmp_path / "out.tar").read_bytes() == path.read_bytes()
    assert not (tmp_path / "compare.tar").exists()


def test_a_table_in_which_nothing_was_found_gets_its_column(settings, tiny_config, photos, tmp_path):
    card = weights.ModelCard(replace(tiny_config, binarize=1.0), "rain", 0.05)
    (tmp_path / "blind").write_bytes(weights.save(Spair(card.network), card))
    blind = Local(replace(settings, model=str(tmp_path / "blind")), "cpu")
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    make_table(source, [encoded(photos[0][:48, :64])])
    outcome = blind.restore(source, Targets(str(target)))
    assert (outcome.verdict, outcome.degraded_share, outcome.notes) == (RESTORED, 0, (tables.UNCHANGED,))
    grown = pq.read_table(target)
    assert grown["restored"].equals(grown["image"])
    bare = make_table(tmp_path / "bare.parquet", [None])
    assert blind.restore(bare, Targets(str(target))).verdict == PASSED
    assert target.read_bytes() == bare.read_bytes()


def test_a_clip_that_cannot_be_written_is_rejected_before_the_model_sees_it(
    settings, photos, tmp_path, monkeypatch
):
    asked = Local(replace(settings, encode=EncodeConfig(codec="prores")), "cpu")
    monkeypatch.setattr(inference, "restore_window", None)
    clip = make_clip(tmp_path / "clip.webm", [photos[0][:48, :64]] * 3)
    outcome = asked.restore(clip, Targets(str(tmp_path / "out.webm")))
    assert outcome.verdict == REJECTED
    assert outcome.reason.startswith(".webm cannot hold prores; --codec source keeps the clip's own")
    assert not (tmp_path / "out.webm").exists()


def test_a_cut_clip_is_rejected_and_leaves_nothing(source, local, tmp_path):
    data = (source / "clip.mp4").read_bytes()
    (source / "cut.mp4").write_bytes(data[: len(data) // 2])
    outcome = local.restore(source / "cut.mp4", Targets(str(tmp_path / "out" / "cut.mp4")))
    assert outcome.verdict == REJECTED
    assert outcome.reason
    assert not (tmp_path / "out").exists()


def test_what_the_model_cannot_do_fails_and_says_so(source, local, tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(inference, "restore_window", full)
    outcome = local.restore(source / "photo.png", Targets(str(tmp_path / "out.png")))
    assert (outcome.verdict, outcome.reason) == (FAILED, "the model could not restore it: out of memory")


@pytest.mark.parametrize("name", ["pipe.png", "pipe.mp4", "link.png"])
def test_what_is_no_file_is_told_and_not_waited_for(local, tmp_path, name):
    path = tmp_path / name
    path.symlink_to(tmp_path / "nowhere") if name == "link.png" else os.mkfifo(path)
    assert seconds_of(path) is None
    outcome = local.restore(path, Targets(str(tmp_path / "out.png")))
    assert (outcome.verdict, outcome.reason) == (FAILED, storage.NO_FILE)


def test_what_nobody_foresaw_is_told_and_the_next_file_is_done(source, local, tmp_path, monkeypatch):
    target = Targets(str(tmp_path / "out.png"))
    with monkeypatch.context() as patched:
        patched.setattr(inference, "restore_window", lambda *_, **__: {}["x"])
        outcome = local.restore(source / "photo.png", target)
    assert outcome.verdict == FAILED
    assert re.fullmatch(r"unforeseen KeyError: 'x' \(test_local.py, line \d+\); please .*", outcome.reason)
    assert local.restore(source / "photo.png", target).verdict == RESTORED
    with pytest.raises(KeyError):
        local.restore(source / "notes.txt", target)


def test_a_comparison_that_cannot_be_written_is_a_note(source, local, tmp_path):
    (tmp_path / "wall").write_text("a file where a folder is needed")
    targets = Targets(str(tmp_path / "out.png"), str(tmp_path / "wall" / "compare.png"))
    outcome = local.restore(source / "photo.png", targets)
    assert (outcome.verdict, outcome.compared) == (RESTORED, False)
    assert outcome.notes[0].startswith("no comparison was written: ")
    assert (tmp_path / "out.png").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is no GPU")
def test_a_gpu_that_is_not_there_is_told(settings):
    with pytest.raises(ValueError, match="torch sees no GPU"):
        Local(settings, "cuda")


# What is named


def found(folder: Path, *keys: str) -> None:
    for key in keys:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(b"?")


def test_a_folder_is_walked_without_what_came_of_it(tmp_path):
    found(
        tmp_path,
        "a.jpg",
        "a.restored.jpg",
        "a.compare.jpg",
        "b.tar.gz",
        "b.restored.tar.gz",
        "b.compare.tar.gz",
    )
    found(
        tmp_path,
        "w.webp",
        "w.webp.compare.png",
        "deep/own.restored.png",
        "_spair/manifest/0.parquet",
        "out/a.jpg",
        "notes.txt",
    )
    keys = [one.key for one in named.find([str(tmp_path)], str(tmp_path / "out"))]
    assert keys == ["a.jpg", "b.tar.gz", "deep/own.restored.png", "notes.txt", "w.webp"]


def test_outputs_lie_beside_or_below(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found(tmp_path, "a/x.JPG", "a/y.tar.gz", "a/z.webp", "a/c.mov")
    here = named.find(["a/x.JPG", "a/y.tar.gz"], None)
    assert [one.restored for one in named.targets(here, None, compare=False)] == [
        "a/x.restored.JPG",
        "a/y.restored.tar.gz",
    ]
    folder = named.find(["a"], "out")
    targets = named.targets(folder, "out", compare=True)
    assert [one.restored for one in targets] == ["out/c.mov", "out/x.JPG", "out/y.tar.gz", "out/z.webp"]
    assert [one.comparison for one in targets] == [
        "out/c.compare.mov", "out/x.compare.JPG", "out/y.compare.tar.gz", "out/z.webp.compare.png"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("out", "restored"),
    [
        ("b.jpg", "b.jpg"),
        ("b.jpeg", "b.jpeg"),
        ("new", "new/a.jpg"),
        ("there", "there/a.jpg"),
        ("b.jpg/", "b.jpg/a.jpg"),
    ],
)
def test_one_file_goes_to_a_file_or_into_a_folder(out, restored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found(tmp_path, "a.jpg", "there/x.txt")
    (target,) = named.targets(named.find(["a.jpg"], out), out, compare=False)
    assert target.restored == restored
