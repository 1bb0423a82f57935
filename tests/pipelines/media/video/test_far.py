"""Clips that are not on this machine: read by ranges, written as their bytes come."""

import io
from contextlib import contextmanager
from dataclasses import replace

import av
import numpy as np
import pytest

from pipelines.media import EncodeConfig, Encoding, MediumError, clips, medium_of
from pipelines.media.video import CONTAINERS
from pipelines.restoration import pieces
from pipelines.restoration.manifest import FAILED, RESTORED
from pipelines.services import remote, storage
from pipelines.services.quarantine import Quarantine
from pipelines.services.remote import Remote
from pipelines.services.storage import StorageError
from tests.pipelines.media.test_clips import make_clip, sound, times
from tests.pipelines.restoration.test_restore import work

BEGINNING = 4096
"""Bytes that can be written again."""
CODED = Encoding(clips=EncodeConfig(crf=10))
FAR = sorted(clips.CLIP.remote)


class Sent(io.BytesIO):
    """A file of which the beginning alone can be written again."""

    def write(self, data):
        end = len(self.getbuffer())
        assert self.tell() == end or self.tell() + len(data) <= BEGINNING, (self.tell(), end)
        return super().write(data)


class Far:
    """A file elsewhere."""

    def __init__(self, suffix, data=b""):
        self.suffix, self.data = suffix, data

    def open(self):
        return io.BufferedReader(io.BytesIO(self.data))

    @contextmanager
    def create(self):
        file = Sent()
        yield file
        self.data = file.getvalue()


def filmed(path, photos):
    frames = [np.roll(photos[0][:64, :96], 3 * i, axis=1) for i in range(40)]
    return make_clip(path, frames, sound=path.suffix in (".mp4", ".mkv", ".mov", ".ts"))


def shown(file):
    """Its frames with their times."""
    with av.open(str(file)) as clip:
        return [(frame.pts, frame.to_ndarray(format="rgb24").tobytes()) for frame in clip.decode(video=0)]


@pytest.mark.long
@pytest.mark.parametrize("suffix", FAR)
def test_a_clip_is_the_same_from_afar_and_to_afar(photos, tmp_path, suffix):
    source, here = filmed(tmp_path / f"in{suffix}", photos), tmp_path / f"out{suffix}"
    far = Far(suffix, source.read_bytes())
    parts = [clips.write(run.state, run.window.pixels, CODED) for run in clips.read(far, None, CODED)]
    told = clips.join(iter(parts), source, here)
    target, again = Far(suffix), Far(suffix)
    told_afar = clips.join(iter(parts), far, target)
    clips.join(iter(parts), far, again)
    assert target.data == again.data  # it is written twice where it is large
    (tmp_path / f"back{suffix}").write_bytes(target.data)
    assert shown(tmp_path / f"back{suffix}") == shown(here)
    at_its_end = [note for note in told_afar if note not in told]
    assert all("index is at its end" in note for note in at_its_end)
    assert len(target.data) > BEGINNING
    if suffix in (".mp4", ".mkv"):
        assert sound(tmp_path / f"back{suffix}") == sound(here)
        assert bool(at_its_end) == (suffix == ".mp4")


def test_what_turns_back_is_written_here():
    back = {ending for one in CONTAINERS if one.turns_back for ending in one.suffixes}
    assert back == {".avi"}
    assert clips.CLIP.remote == clips.CLIP.suffixes - back


@pytest.fixture
def far(cluster, s3, photos, tmp_path, monkeypatch, tiny_weights):
    """A clip in a bucket that counts as large."""
    monkeypatch.setattr(remote, "LARGE", 1000)
    monkeypatch.setattr(remote, "BLOCK", 2000)
    monkeypatch.setattr(storage, "download", None)  # nothing of it comes to this disk
    clip = filmed(tmp_path / "drive.mp4", photos)
    storage.write_bytes(f"{s3}/raw/drive.mp4", clip.read_bytes())
    item = {"key": "drive.mp4", "uri": f"{s3}/raw/drive.mp4", "size": clip.stat().st_size, "kind": "clip"}
    return {**item, "panel": False, "known_digest": ""}, clip, work(tiny_weights)


def decoded(item):
    return list(pieces.decode(item, CODED, Quarantine()))


def test_a_large_clip_of_a_bucket_stays_there(far, s3, tmp_path):
    item, clip, settings = far
    rows = decoded(item)
    assert [row["verdict"] for row in rows] == [RESTORED] * 2
    assert rows[0]["digest"] == pieces._digest(clip)
    parts = [
        medium_of("a.mp4").write(piece.state, piece.window.pixels[[*piece.window.own]], CODED)
        for piece in map(pieces.unpacked, rows)
    ]
    settings = replace(settings, destination=f"{s3}/dry")
    digest, notes = pieces._joined(settings, item, lambda: iter(parts))
    (tmp_path / "dry.mp4").write_bytes(storage.read_bytes(f"{s3}/dry/drive.mp4"))
    assert digest == pieces._digest(tmp_path / "dry.mp4")
    assert times(tmp_path / "dry.mp4") == times(clip)
    assert sound(tmp_path / "dry.mp4") == sound(clip)
    assert list(notes) == ["its index is at its end: players on the network begin later"]


def test_one_of_another_size_than_was_listed_is_not_begun(far):
    item, _, _ = far
    (row,) = decoded({**item, "size": item["size"] + 1})
    assert row["verdict"] == FAILED
    assert "were listed: it was changed meanwhile" in row["error"]


def test_a_store_that_breaks_off_is_no_damage_of_the_clip(far, monkeypatch):
    item, _, _ = far
    read, asked = remote._Ranges._block, []

    def broken(self, number):
        asked.append(number)
        if len(asked) > 8:
            raise StorageError("the store does not answer")
        return read(self, number)

    monkeypatch.setattr(remote._Ranges, "_block", broken)
    rows = decoded(item)
    assert (rows[-1]["verdict"], rows[-1]["error"]) == (FAILED, "the store does not answer")


@pytest.mark.long
@pytest.mark.parametrize("suffix", FAR)
def test_a_store_that_takes_no_more_is_told_as_such(s3, photos, tmp_path, suffix, monkeypatch):
    def full(self, number, data):
        raise StorageError("the store is full")

    monkeypatch.setattr(remote, "PART", 2000)
    monkeypatch.setattr(remote._Upload, "_send", full)
    source = filmed(tmp_path / f"in{suffix}", photos)
    parts = [clips.write(run.state, run.window.pixels, CODED) for run in clips.read(source, None, CODED)]
    with pytest.raises(StorageError, match="the store is full"):
        clips.join(iter(parts), source, Remote(f"{s3}/dry/drive{suffix}"))


def test_what_is_no_clip_is_told_as_such(far):
    item, _, _ = far
    storage.write_bytes(item["uri"], b"no clip at all " * 400)
    (row,) = decoded({**item, "size": 6000})
    assert "not a clip that can be read" in row["error"]
    with pytest.raises(MediumError, match="not a clip"):
        next(clips.read(Far(".mp4", b"nothing"), None))
