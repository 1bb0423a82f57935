"""What is there of a damaged clip is read, and what is not is said."""

import av
import numpy as np
import pytest

from pipelines.media import MediumError, clips
from tests.pipelines.media.video.samples import filmed, restored, seen, video


@pytest.mark.parametrize("suffix", [".ts", ".avi", ".flv", ".mkv", ".webm", ".mpg"])
def test_of_a_clip_that_was_cut_all_that_is_there(tmp_path, suffix):
    codec = {".avi": "mpeg4", ".webm": "libvpx", ".mpg": "mpeg2video"}.get(suffix, "libx264")
    whole = filmed(
        tmp_path / f"in{suffix}", codec=codec, frames=80, options={"g": "8"}, size=(96, 128)
    ).read_bytes()
    source, target = tmp_path / f"cut{suffix}", tmp_path / f"out{suffix}"
    source.write_bytes(whole[: len(whole) * 6 // 10])
    runs, notes = restored(source, target)
    count = len(seen(runs))
    assert 20 < count < 75
    assert len(video(target)["times"]) == count
    if suffix not in (".ts", ".mpg"):  # which say nowhere how long they are
        assert any("cut short" in note and f"({count} frames)" in note for note in notes)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".mp4", "libx265"), (".mkv", "mpeg4")])
def test_bad_bytes_in_the_middle_are_told_by_their_frames(tmp_path, suffix, codec):
    source = filmed(tmp_path / f"in{suffix}", codec=codec, frames=40, options=_quiet(codec), size=(96, 128))
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as clip:
        packets = [packet for packet in clip.demux(video=0) if packet.size]
        at = packets[22].pos
        length = packets[22].size
    data[at + length // 3 : at + length // 3 + 200] = bytes(
        np.random.default_rng(1).integers(0, 256, 200).tolist()
    )
    source.write_bytes(data)
    runs, notes = restored(source, tmp_path / f"out{suffix}")
    assert len(seen(runs)) > 20
    assert any("damaged" in note for note in notes), notes


def _quiet(codec):
    return {
        "g": "10",
        **({"x265-params": "log-level=none:pools=1:frame-threads=1:keyint=10"} if codec == "libx265" else {}),
    }


def test_a_whole_clip_is_not_called_damaged(tmp_path):
    for suffix, codec in ((".mp4", "libx264"), (".avi", "mpeg4"), (".ts", "libx264"), (".flv", "flv")):
        runs = list(clips.read(filmed(tmp_path / f"in{suffix}", codec=codec, frames=40), None))
        assert [note for run in runs for note in run.notes] == []


def test_a_clip_that_starts_late_is_not_called_cut(tmp_path):
    whole, late = filmed(tmp_path / "whole.mkv", frames=40), tmp_path / "late.mkv"
    with av.open(str(whole)) as clip, av.open(str(late), "w") as out:
        copy = out.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux(video=0):
            if packet.size:
                packet.pts += 5000
                packet.dts = None if packet.dts is None else packet.dts + 5000
                packet.stream = copy
                out.mux(packet)
    runs, notes = restored(late, tmp_path / "out.mkv")
    assert notes == []
    assert runs[0].seconds[0] == 5
    assert video(tmp_path / "out.mkv")["times"] == video(late)["times"]


def test_what_shows_nothing_is_rejected(tmp_path):
    source = filmed(tmp_path / "in.mkv", frames=10)
    data = source.read_bytes()
    source.write_bytes(data[:700])
    with pytest.raises(MediumError, match=r"no frame|not a clip|no video"):
        list(clips.read(source, None))


def test_frames_of_another_size_are_scaled_and_that_is_said(tmp_path):
    source, target = tmp_path / "in.ts", tmp_path / "out.ts"
    parts = [
        filmed(tmp_path / f"{k}.ts", size=size, frames=6, options={"bf": "0"})
        for k, size in enumerate(((48, 64), (64, 96)))
    ]
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    runs, notes = restored(source, target)
    assert seen(runs).shape == (12, 48, 64, 3)
    assert any("from frame 6 on it has another size, 96x64" in note for note in notes)
    assert len(video(target)["times"]) == 12


def test_memory_is_bounded_by_the_run(tmp_path):
    source = filmed(tmp_path / "in.mkv", codec="ffv1", pixels="yuv420p10le", frames=40)
    assert [len(run.window.own) for run in clips.read(source, None)] == [32, 8]
