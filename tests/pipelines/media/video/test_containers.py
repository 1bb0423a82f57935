"""Containers that cameras write: the same one again, with the same times and rates."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from av.error import FFmpegError

from pipelines.media import EncodeConfig, Encoding, MediumError, clips
from pipelines.media.video import CONTAINERS, container_of
from pipelines.media.video.codecs import CODERS
from tests.pipelines.media.video.samples import filmed, off, restored, video

KINDS = {
    ".ts": "libx264",
    ".mts": "libx264",
    ".m2ts": "libx264",
    ".3gp": "libx264",
    ".3g2": "mpeg4",
    ".mpg": "mpeg2video",
    ".vob": "mpeg2video",
    ".flv": "libx264",
    ".f4v": "libx264",
    ".wmv": "wmv2",
    ".asf": "msmpeg4",
    ".mjpeg": "mjpeg",
    ".h264": "libx264",
    ".hevc": "libx265",
}


@pytest.mark.long
@pytest.mark.parametrize("suffix", KINDS)
def test_the_same_container_times_rate_and_codec(tmp_path, suffix):
    codec = KINDS[suffix]
    pixels, full = ("yuvj420p", {"color_range": 2}) if codec == "mjpeg" else ("yuv420p", {})
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    filmed(source, codec=codec, pixels=pixels, frames=34, **full)
    _, notes = restored(source, target)
    before, after = video(source), video(target)
    kept = ("container", "times", "rate", "base_rate", "codec", "pixels")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert notes == []
    assert off(source, target) < 3


@pytest.mark.parametrize("reordered", ["0", "2"])
def test_h264_in_files_that_do_not_say_when_a_frame_is_shown(tmp_path, reordered):
    """FFmpeg's own guess is a frame late, and would be later with each copy."""
    source, target = tmp_path / "in.asf", tmp_path / "out.asf"
    filmed(source, frames=20, options={"bf": reordered})
    _, notes = restored(source, target)
    assert notes == []
    places = []
    for path in (source, target):
        with av.open(str(path)) as clip:
            places.append([packet.dts for packet in clip.demux(video=0) if packet.size])
    assert places[0] == places[1]
    assert off(source, target) < 3


def test_packets_with_arrival_times_stay_such(tmp_path):
    source, target = filmed(tmp_path / "in.m2ts"), tmp_path / "out.m2ts"
    restored(source, target)
    assert [path.read_bytes()[4::192][:5] for path in (source, target)] == [b"G" * 5] * 2
    plain = tmp_path / "plain.m2ts"
    filmed(tmp_path / "plain.ts").rename(plain)
    restored(plain, target)
    assert target.read_bytes()[::188][:5] == b"G" * 5


def test_a_transport_stream_starts_when_it_did(tmp_path):
    source = filmed(tmp_path / "in.ts")
    with (
        av.open(str(source)) as clip,
        av.open(
            str(tmp_path / "late.ts"), "w", format="mpegts", container_options={"mpegts_copyts": "1"}
        ) as out,
    ):
        copy = out.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts + 9_000_000, packet.dts + 9_000_000
                packet.stream = copy
                out.mux(packet)
    restored(tmp_path / "late.ts", tmp_path / "out.ts")
    assert video(tmp_path / "out.ts")["times"] == video(tmp_path / "late.ts")["times"]
    assert video(tmp_path / "out.ts")["times"][0] > 100


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".mp4", ".webm"])
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(241, 20)])
@pytest.mark.parametrize("frames", [1, 25, 51])
def test_rates_and_counts_stay(tmp_path, suffix, rate, frames):
    codec = {".avi": "mpeg4", ".webm": "libvpx"}.get(suffix, "libx264")
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    filmed(source, codec=codec, frames=frames, rate=rate, size=(16, 32))
    restored(source, target, preset="ultrafast")
    before, after = video(source), video(target)
    assert len(after["times"]) == frames
    for name in ("times", "rate", "base_rate"):
        assert after[name] == before[name], name


def test_frames_that_another_rate_is_said_of(tmp_path):
    """12.05 a second under a header of 25."""
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width = 48, 64
        stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(51):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(number * 1000 / 12.05), Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    restored(source, target)
    assert video(target)["times"] == video(source)["times"]
    assert video(target)["rate"] == video(source)["rate"]


def test_of_a_trimmed_clip_what_is_shown(tmp_path):
    """Trimmed without encoding: an edit list hides what stands before the start."""
    whole, source, target = (
        filmed(tmp_path / "whole.mp4", frames=20),
        tmp_path / "in.mp4",
        tmp_path / "out.mp4",
    )
    with av.open(str(whole)) as clip, av.open(str(source), "w") as out:
        copy = out.add_stream_from_template(clip.streams.video[0])
        step = int(clip.streams.video[0].duration // 20)
        for packet in clip.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts - 8 * step, packet.dts - 8 * step
                packet.stream = copy
                out.mux(packet)
    runs, notes = restored(source, target)
    assert notes == []
    assert sum(len(run.window.own) for run in runs) == 12
    assert video(target)["times"] == video(source)["times"]
    assert video(target)["times"][0] == 0


def test_of_a_clip_with_sections_cut_out_what_is_shown(tmp_path):
    """Without encoding: an edit list hides what leads to each section, and what lies between."""
    source, target = with_sound(tmp_path / "in.mp4", frames=40, movie_timescale="1000"), tmp_path / "out.mp4"
    sections = [(0.12, 0.32), (0.6, 0.32), (1.4, 0.16)]
    source.write_bytes(edited(source.read_bytes(), sections, iter((12800, 16000))))
    _, notes = restored(source, target)
    assert notes == []
    times = [[float(when) for when in video(path)["times"]] for path in (source, target)]
    assert times[1] == pytest.approx(times[0], abs=0.041)  # FFmpeg has some go back where sections meet
    assert len(times[1]) == 20
    assert heard(target) == heard(source)


def edited(boxes, sections, scales):
    """MP4 boxes in which each track shows nothing but sections: their beginnings and lengths in seconds."""
    done, at = b"", 0
    while at < len(boxes):
        size, kind = struct.unpack_from(">I4s", boxes, at)
        inner = boxes[at + 8 : at + size]
        if kind in (b"moov", b"trak", b"edts"):
            inner = edited(inner, sections, scales)
        elif kind == b"elst":
            (start,), scale = struct.unpack(">i", inner[-8:-4]), next(scales)
            inner = struct.pack(">II", 0, len(sections)) + b"".join(
                struct.pack(">IiI", round(1000 * length), start + round(begin * scale), 1 << 16)
                for begin, length in sections
            )
        done += struct.pack(">I4s", len(inner) + 8, kind) + inner
        at += size
    return done


def heard(path):
    with av.open(str(path)) as clip:
        return [frame.pts * frame.time_base for frame in clip.decode(audio=0)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_last_frame_is_held_as_long(tmp_path, suffix):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    with av.open(str(filmed(tmp_path / f"whole{suffix}", options={"bf": "0"}))) as clip:
        packets = [packet for packet in clip.demux(video=0) if packet.size]
        with av.open(str(source), "w") as out:
            copy = out.add_stream_from_template(clip.streams.video[0], opaque=True)
            packets[-1].duration = round(3 / packets[-1].time_base)
            for packet in packets:
                packet.stream = copy
                out.mux(packet)
    restored(source, target)
    assert lasting(target) == pytest.approx(lasting(source), abs=0.002)
    assert lasting(source) > 3


def lasting(path):
    with av.open(str(path)) as clip:
        return clip.duration / av.time_base


@pytest.mark.parametrize(("suffix", "frames"), [(".mp4", 2), (".ts", 3)])
def test_a_short_interlaced_clip(tmp_path, suffix, frames):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    filmed(source, frames=frames, options={"flags": "+ildct+ilme", "x264-params": "tff=1"})
    assert video(source)["interlaced"]
    restored(source, target)
    assert video(target)["times"] == video(source)["times"]


def test_a_fragmented_clip(tmp_path):
    whole, source, target = (
        filmed(tmp_path / "whole.mp4", frames=40),
        tmp_path / "in.mp4",
        tmp_path / "out.mp4",
    )
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(str(whole)) as clip, av.open(str(source), "w", container_options=options) as out:
        copy = out.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    _, notes = restored(source, target)
    assert notes == []
    assert video(target)["times"] == video(source)["times"]


def test_another_containers_bytes_start_at_the_same_time(tmp_path):
    source = with_sound(tmp_path / "in.mp4")
    lying, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    source.rename(lying)
    restored(lying, target)
    after = video(target)
    assert after["container"].startswith("matroska")
    assert after["times"] == video(lying)["times"]
    assert after["times"][0] == 0
    with av.open(str(target)) as clip:
        assert next(clip.demux(audio=0)).pts == 0


def with_sound(path, frames=30, **options):
    """With AAC, whose first packet lies before the start."""
    muxer = container_of(path.suffix).muxer
    with av.open(str(path), "w", format=muxer, container_options=options) as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width = 48, 64
        sound = out.add_stream("aac", rate=16000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * number, np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        for number in range(frames * 640 // 1024):
            tone = np.sin(np.arange(1024) / 9)[None].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.rate, frame.pts = 16000, 1024 * number
            out.mux(sound.encode(frame))
        out.mux(sound.encode())
    return path


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_sound_does_not_drift(tmp_path, suffix):
    """Twenty minutes at a frame a second and a packet of sound a second."""
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    with av.open(str(source), "w", format=container_of(suffix).muxer) as out:
        stream = out.add_stream("mpeg2video" if suffix == ".ts" else "mpeg4", rate=1)
        stream.height, stream.width = 16, 16
        sound = out.add_stream("mp2", rate=16000)
        for number in range(1200):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), number % 256, np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
            tone.rate, tone.pts = 16000, 16000 * number
            out.mux(sound.encode(tone))
        out.mux(stream.encode())
        out.mux(sound.encode())
    restored(source, target)
    assert _ends(target) == _ends(source)


def _ends(path):
    """Count and last time of the packets of each track."""
    with av.open(str(path)) as clip:
        ends = {}
        for packet in clip.demux():
            if packet.size:
                count = ends.get(packet.stream.index, (0,))[0] + 1
                ends[packet.stream.index] = count, packet.dts * packet.time_base
        return ends


def test_what_is_not_of_a_container_is_told_with_the_remedy(tmp_path):
    source = filmed(tmp_path / "in.webm", codec="libvpx-vp9")
    with pytest.raises(MediumError, match=r"\.webm cannot hold h264; --codec source"):
        restored(source, tmp_path / "out.webm", codec="h264")


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".webm", "prores"),
        (".mp4", "prores"),
        (".mov", "vp9"),
        (".mov", "av1"),
        (".flv", "mpeg4"),
        (".avi", "hevc"),
    ],
)
def test_it_is_told_before_the_first_frames(tmp_path, suffix, codec):
    """Also of what FFmpeg lists and its muxer then refuses."""
    source = filmed(tmp_path / f"in{suffix}", codec=CODERS[container_of(suffix).codec].encoder)
    told = rf"\{suffix} cannot hold {codec}; --codec source keeps the clip's own"
    with pytest.raises(MediumError, match=told):
        next(clips.read(source, None, Encoding(clips=EncodeConfig(codec=codec))))
    assert next(clips.read(source, None, Encoding())).window.pixels.any()


def test_another_containers_codec_gives_way_to_the_usual_one(tmp_path):
    lying, target = tmp_path / "in.mov", tmp_path / "out.mov"
    filmed(tmp_path / "in.mp4", codec="libvpx-vp9").rename(lying)
    _, notes = restored(lying, target)
    assert notes == ["its video is in h264 now, no longer in vp9"]
    assert video(target)["codec"] == "h264"


@pytest.mark.parametrize(
    "container", [one for one in CONTAINERS if not one.codecs], ids=lambda one: one.muxer
)
def test_a_container_holds_what_can_be_written_into_it(tmp_path, container):
    suffix = min(container.suffixes)
    for codec in (
        "h264",
        "hevc",
        "av1",
        "vp8",
        "vp9",
        "prores",
        "ffv1",
        "mpeg4",
        "mpeg2video",
        "flv1",
        "png",
    ):
        pixels = {"prores": "yuv422p10le", "png": "rgb24"}.get(codec, "yuv420p")
        refused = None
        try:
            filmed(tmp_path / f"{codec}{suffix}", codec=CODERS[codec].encoder, pixels=pixels, frames=2)
        except (FFmpegError, ValueError) as error:
            refused = error
        assert container.holds(codec) == (refused is None), (codec, refused)
