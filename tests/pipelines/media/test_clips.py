import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.media import EncodeConfig, Encoding, MediumError, clips
from pipelines.media.video import container_of, read
from spair_core.footage import Reach

CODECS = {".webm": "libvpx-vp9", ".avi": "mpeg4", ".mjpeg": "mjpeg", ".mjpg": "mjpeg"}
CODECS |= dict.fromkeys((".mpg", ".mpeg", ".vob"), "mpeg2video")
CODECS |= dict.fromkeys((".hevc", ".h265", ".265"), "libx265")


def make_clip(path: Path, frames, *, stamps=None, rate=25, sound=False, pix_fmt="yuv420p", rotation=0):
    with av.open(str(path), "w", format=container_of(path.suffix).muxer) as out:
        codec = CODECS.get(path.suffix, "libx264")
        stream = out.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else pix_fmt
        # Some know no time stamps, only a frame rate.
        counted = codec in ("mpeg4", "mpeg2video", "mjpeg")
        base = Fraction(1, rate) if counted else Fraction(1, 1000)
        stream.codec_context.time_base = base
        if codec == "libx265":
            stream.codec_context.options = {"x265-params": "log-level=none:pools=1:frame-threads=1"}
        if rotation:
            stream.set_display_rotation(rotation)
        audio = out.add_stream("aac", rate=16000) if sound else None
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (stamps[i] if stamps else round(i / rate / base)), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if audio:
            for i in range(10):
                tone = np.sin(np.arange(1600) * (i + 1) / 20)[None].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
                frame.rate, frame.pts = 16000, 1600 * i
                out.mux(audio.encode(frame))
            out.mux(audio.encode())
    return path


@pytest.fixture
def frames(photos):
    return [np.roll(photos[0][:64, :96], 3 * i, axis=1) for i in range(40)]


def times(path):
    with av.open(str(path)) as clip:
        return [frame.pts * frame.time_base for frame in clip.decode(video=0)]


def sound(path):
    with av.open(str(path)) as clip:
        return [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in clip.demux(audio=0)
            if packet.dts is not None
        ]


def rebuilt(source, target):
    runs = list(clips.read(source, None))
    encoding = Encoding(clips=EncodeConfig(crf=10))
    clips.join((clips.write(run.state, run.window.pixels, encoding) for run in runs), source, target)
    return runs


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi"])
def test_frames_times_and_sound_are_kept(tmp_path, frames, suffix):
    source, target = make_clip(tmp_path / f"in{suffix}", frames, sound=True), tmp_path / f"out{suffix}"
    runs = rebuilt(source, target)
    assert [run.window.pixels.shape[0] for run in runs] == [32, 8]
    assert times(target) == times(source)
    if suffix == ".avi":  # its packets have no borders of their own
        assert b"".join(data for _, data in sound(target)) == b"".join(data for _, data in sound(source))
    else:
        assert sound(target) == sound(source)
    with av.open(str(target)) as clip:
        shown = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
    before = np.concatenate([run.window.pixels for run in runs]).astype(float)
    assert np.abs(np.stack(shown) - before).mean() < 4


def test_a_variable_frame_rate_stays_exact(tmp_path, frames):
    stamps = [int(s) for s in np.cumsum(np.random.default_rng(0).integers(10, 90, len(frames)))]
    source, target = make_clip(tmp_path / "in.mkv", frames, stamps=stamps), tmp_path / "out.mkv"
    rebuilt(source, target)
    assert times(target) == times(source)
    assert len(set(np.diff([float(t) for t in times(target)]).round(4))) > 5


def test_odd_sides_webm_and_rotation(tmp_path, photos):
    odd = [photos[0][:33, :47]] * 3
    source = make_clip(tmp_path / "odd.mp4", odd, pix_fmt="yuv444p", rotation=90)
    rebuilt(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as clip:
        frame = next(clip.decode(video=0))
        assert (frame.width, frame.height, frame.rotation) == (
            47,
            33,
            90,
        )
    source = make_clip(tmp_path / "in.webm", [photos[0][:32, :48]] * 5)
    rebuilt(source, tmp_path / "out.webm")
    assert times(tmp_path / "out.webm") == times(source)


def test_colours_do_not_drift(tmp_path, photos):
    flat = [np.full((32, 32, 3), (200, 40, 90), np.uint8)] * 2
    source, target = make_clip(tmp_path / "in.mp4", flat), tmp_path / "out.mp4"
    (run,) = rebuilt(source, target)
    with av.open(str(target)) as clip:
        again = next(clips.read(target, None)).window.pixels
        assert len(clip.streams.video) == 1
    assert np.abs(again.astype(int) - run.window.pixels).max() <= 3


def test_what_is_no_clip(tmp_path, frames):
    (tmp_path / "text.mp4").write_text("no clip at all" * 99)
    with pytest.raises(MediumError, match="not a clip"):
        list(clips.read(tmp_path / "text.mp4", None))
    whole = make_clip(tmp_path / "in.mp4", frames).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index stood at the end
    with pytest.raises(MediumError, match="not a clip"):
        list(clips.read(tmp_path / "cut.mp4", None))
    with pytest.raises(ValueError, match="over the limit"):
        list(read(tmp_path / "in.mp4", None, max_pixels=1000))
    only_sound = tmp_path / "sound.mp4"
    with av.open(str(only_sound), "w") as out:
        stream = out.add_stream("aac", rate=16000)
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), format="fltp", layout="mono")
        tone.rate = 16000
        out.mux(stream.encode(tone))
        out.mux(stream.encode())
    with pytest.raises(MediumError, match="no video"):
        list(clips.read(only_sound, None))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_of_a_clip_that_ends_early_all_is_read_that_is_there(tmp_path, photos, suffix):
    frames = [np.roll(photos[0][:64, :96], 3 * i, axis=1) for i in range(80)]
    whole = make_clip(tmp_path / f"in{suffix}", frames)
    whole = fast(whole, tmp_path / "fast.mp4") if suffix == ".mp4" else whole
    data = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(data[: int(0.6 * len(data))])
    runs = rebuilt(cut, tmp_path / f"out{suffix}")
    count = sum(len(run.window.own) for run in runs)
    assert 10 < count < 80
    (note,) = [note for run in runs for note in run.notes if "cut short" in note]
    assert f"of 3.2 seconds are there ({count} frames)" in note
    assert len(times(tmp_path / f"out{suffix}")) == count


def fast(source, target):
    """The same with its index in front."""
    with av.open(str(source)) as clip, av.open(str(target), "w", options={"movflags": "+faststart"}) as out:
        copy = out.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    return target


def test_a_segment_holds_the_frames_of_its_run(frames, tmp_path):
    run = next(clips.read(make_clip(tmp_path / "in.mp4", frames), None))
    with av.open(io.BytesIO(clips.write(run.state, run.window.pixels, Encoding()))) as segment:
        assert len(list(segment.decode(video=0))) == len(run.state.pts) == 32


def test_runs_carry_what_their_frames_references_need(frames, tmp_path):
    path = make_clip(tmp_path / "in.mp4", frames)
    bare, reaching = (list(clips.read(path, reach)) for reach in (None, Reach()))
    for run, wide in zip(bare, reaching, strict=True):
        assert wide.state == run.state
        assert (wide.window.pixels[list(wide.window.own)] == run.window.pixels).all()
        assert all(wide.window.neighbours)
    assert len(reaching[0].window.pixels) > 32
