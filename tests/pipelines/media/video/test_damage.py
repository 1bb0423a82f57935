"""What is there of a damaged clip is read, and what is not is said."""

import struct
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
import pytest
from av.error import FFmpegError

from pipelines.media import Encoding, MediumError, clips
from pipelines.media.video import damage, run_length
from pipelines.media.video.clip import Timed
from tests.pipelines.media.test_clips import sound
from tests.pipelines.media.video.samples import filmed, restored, seen, video


@pytest.mark.long
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


@pytest.mark.parametrize("share", [35, 60, 85])
def test_a_packet_that_was_cut_takes_no_frame_along(tmp_path, share):
    """Frames that are shown before others which came first wait in the decoder."""
    whole = filmed(
        tmp_path / "in.flv", frames=40, options={"g": "40", "bf": "3"}, size=(96, 128)
    ).read_bytes()
    source = tmp_path / "cut.flv"
    source.write_bytes(whole[: len(whole) * share // 100])
    with av.open(str(source)) as clip:
        decoder, shown = clip.streams.video[0].codec_context, 0
        decoder.thread_type = "NONE"
        packets = [packet for packet in clip.demux(video=0) if packet.size]
        for packet in [*packets, None]:
            with suppress(FFmpegError):
                shown += len(decoder.decode(packet))
    runs, notes = restored(source, tmp_path / "out.flv")
    assert len(seen(runs)) == shown
    assert any("too damaged to be shown" in note for note in notes)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".mp4", "libx265"), (".mkv", "mpeg4")])
def test_bad_bytes_in_the_middle_are_told_by_their_frames(tmp_path, suffix, codec):
    source = filmed(tmp_path / f"in{suffix}", codec=codec, frames=40, options=_quiet(codec), size=(96, 128))
    at, size = _packets(source)[22]
    source.write_bytes(_spoilt(source.read_bytes(), at + size // 3, 200, np.random.default_rng(1)))
    runs, notes = restored(source, tmp_path / f"out{suffix}")
    assert len(seen(runs)) > 20
    assert any("damaged" in note for note in notes), notes


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_no_damage_within_a_packet_goes_untold_that_its_decoder_sees(tmp_path, codec):
    """Of H.264 that is all that changes a frame; of HEVC what shows less."""
    source = filmed(tmp_path / "in.mp4", codec=codec, frames=40, options=_quiet(codec), size=(192, 256))
    whole, frames = source.read_bytes(), seen(clips.read(source, None))
    packets = _packets(source)
    damaged = untold = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        at, size = packets[int(rng.integers(5, 35))]
        source.write_bytes(_spoilt(whole, at + size // 3, min(200, size // 2), rng))
        runs = list(clips.read(source, None))
        left = seen(runs)
        worse = len(left) < 40 or (codec == "libx264" and (left != frames).any())
        damaged += worse
        untold += worse and not any("damaged" in note for run in runs for note in run.notes)
    assert damaged > 6
    assert untold == 0


def _packets(source):
    """(place in the file, bytes) of each of the pictures' packets."""
    with av.open(str(source)) as clip:
        return [(packet.pos, packet.size) for packet in clip.demux(video=0) if packet.size]


def _spoilt(data, at, count, rng):
    return data[:at] + bytes(rng.integers(0, 256, count).tolist()) + data[at + count :]


def _quiet(codec):
    return {
        "g": "10",
        **({"x265-params": "log-level=none:pools=1:frame-threads=1:keyint=10"} if codec == "libx265" else {}),
    }


def test_a_whole_clip_is_not_called_damaged(tmp_path):
    for suffix, codec in (
        (".mp4", "libx264"),
        (".mkv", "libx265"),
        (".avi", "mpeg4"),
        (".ts", "libx264"),
        (".flv", "flv"),
    ):
        made = filmed(tmp_path / f"in{suffix}", codec=codec, frames=40, options=_quiet(codec))
        runs = list(clips.read(made, None))
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


@pytest.mark.parametrize("long", [False, True])
def test_a_recording_that_was_never_ended_is_told_as_such(tmp_path, long):
    """As by a camera that lost its power: what it had is there, but for the index."""
    data = filmed(tmp_path / "whole.mp4").read_bytes()
    at = data.find(b"mdat") - 4
    head = struct.pack(">I4sQ", 1, b"mdat", 0) if long else struct.pack(">I4s", 0, b"mdat")
    source = tmp_path / "in.mp4"
    source.write_bytes(data[:at] + head + data[at + 8 : data.find(b"moov") - 4])
    with pytest.raises(MediumError, match=r"index \(moov\) is missing.* untrunc"):
        list(clips.read(source, None))
    for other in (b"no clip at all" * 50, struct.pack(">I4sQ", 1, b"free", 1 << 63) + bytes(500)):
        source.write_bytes(other)
        with pytest.raises(MediumError, match="Invalid data"):
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


def test_frames_that_cannot_be_decoded_leave_a_gap(tmp_path):
    """The others stay beside their sound."""
    source, target = tmp_path / "in.avi", tmp_path / "out.avi"
    filmed(source, codec="mjpeg", pixels="yuvj420p", frames=12, color_range=2)
    data = bytearray(source.read_bytes())
    for start in [number for number in range(len(data)) if data[number : number + 3] == b"\xff\xd8\xff"][4:7]:
        data[start : start + 690] = 690 * b"\x11"
    source.write_bytes(data)
    _, notes = restored(source, target)
    assert notes == ["3 of its packets are too damaged to be shown"]
    assert [25 * when for when in video(target)["times"]] == [0, 1, 2, 3, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_clip_that_begins_without_a_key_frame(tmp_path, suffix):
    whole, source, target = (tmp_path / f"{name}{suffix}" for name in ("whole", "in", "out"))
    filmed(whole, frames=12, options={"bf": "0", "g": "5", "sc_threshold": "0"})
    with av.open(str(whole)) as clip, av.open(str(source), "w") as out:
        copy = out.add_stream_from_template(clip.streams.video[0], opaque=True)
        for packet in [one for one in clip.demux(video=0) if one.size][1:]:
            packet.stream = copy
            out.mux(packet)
    _, notes = restored(source, target)
    assert notes == ["its first 4 frames cannot be shown, damaged or built on what is not there"]
    assert places(target) == places(source)[4:]


def places(path):
    with av.open(str(path)) as clip:
        return [packet.pts * packet.time_base for packet in clip.demux(video=0) if packet.size]


def test_memory_is_bounded_by_the_run(tmp_path):
    source = filmed(tmp_path / "in.mkv", codec="ffv1", pixels="yuv420p10le", frames=40)
    assert [len(run.window.own) for run in clips.read(source, None)] == [32, 8]
    full_hd, largest = (run_length(3 * width * height) for width, height in ((1920, 1080), (7680, 4320)))
    assert (full_hd, largest) == (11, 5)


@pytest.mark.parametrize("frames", [12, 50])
def test_recordings_one_after_another_go_on(tmp_path, frames):
    """As `cat` joins them, or a camera that starts again: each has a clock of its own."""
    one, source, target = tmp_path / "one.ts", tmp_path / "in.ts", tmp_path / "out.ts"
    talking(one, frames)
    source.write_bytes(3 * one.read_bytes())
    runs, notes = restored(source, target)
    assert any("set anew 2 times" in note for note in notes)
    assert [note for note in notes if "clock" not in note] == []
    for told in (video(target)["times"], heard(target)):
        steps = np.diff(np.array(told, float))
        assert steps.min() > 0.01
        assert steps.max() < 0.1
    assert len(video(target)["times"]) == len(seen(runs)) == 3 * frames
    assert len(heard(target)) == 3 * len(heard(one))
    ends = [float(times[-1] - times[0]) for times in (video(target)["times"], heard(target))]
    assert ends[0] == pytest.approx(ends[1], abs=0.1)


def talking(path, frames):
    """A clip with sound that is as long."""
    picture = filmed(path.with_name("picture.ts"), frames=frames)
    with av.open(str(picture)) as clip, av.open(str(path), "w", format="mpegts") as out:
        copy, voice = out.add_stream_from_template(clip.streams.video[0]), out.add_stream("aac", rate=48000)
        packets = [packet for packet in clip.demux(video=0) if packet.size]
        first = min(packet.dts * packet.time_base for packet in packets)
        for packet in packets:
            packet.stream = copy
        frame = av.AudioFrame(layout="stereo", samples=1024)
        frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
        for number in range(frames * 48000 // 25 // 1024):
            frame.pts = number * 1024 + round(first * 48000)
            packets += voice.encode(frame)
        for packet in sorted(packets + voice.encode(), key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)
    return path


def heard(path):
    return [when for when, _ in sound(path)]


@pytest.mark.parametrize("delta", [0x7FFFFFFF, 0x80000001])
def test_times_that_no_file_can_hold_follow_one_another(tmp_path, delta):
    source, target = filmed(tmp_path / "in.mp4", frames=12), tmp_path / "out.mp4"
    data = bytearray(source.read_bytes())
    at = data.find(b"stts") + 8
    entries = struct.unpack_from(">I", data, at)[0]
    struct.pack_into(">2I", data, at + 4, struct.unpack_from(">2I", data, at + 4)[0], delta)
    source.write_bytes(data)
    assert entries == 1
    runs, notes = restored(source, target)
    assert len(video(target)["times"]) == len(seen(runs)) > 0
    assert any("clock" in note for note in notes)


def test_a_long_wait_between_frames_is_kept(tmp_path):
    """As of a camera that films what moves."""
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    with (
        av.open(str(filmed(tmp_path / "steady.mkv", frames=8, options={"bf": "0"}))) as clip,
        av.open(str(source), "w") as out,
    ):
        copy = out.add_stream_from_template(clip.streams.video[0])
        for number, packet in enumerate(one for one in clip.demux(video=0) if one.size):
            packet.stream, late = copy, 3600 * (number >= 4)
            packet.pts, packet.dts = (round(packet.pts + late / packet.time_base),) * 2
            out.mux(packet)
    _, notes = restored(source, target)
    assert video(target)["times"] == video(source)["times"]
    assert max(np.diff(np.array(video(target)["times"], float))) > 3600
    assert notes == []


def test_a_track_that_begins_on_the_way_ends_nothing(tmp_path):
    """Where FFmpeg finds one while it reads, PyAV's own list of tracks is too short for the end."""

    class Grown:
        def __init__(self, clip):
            self.format, self.streams, self._clip = clip.format, clip.streams, clip

        def demux(self, streams):
            yield from self._clip.demux(streams)
            raise IndexError("list index out of range")

    gathered = damage.Damage()
    with av.open(str(filmed(tmp_path / "in.flv", codec="flv", frames=9))) as clip:
        assert len(list(damage.packets(Grown(clip), list(clip.streams), gathered))) == 9
        assert "a track that begins on the way is not kept" in gathered.notes(clip, clip.streams.video[0])


def test_runs_that_begin_before_the_start_follow_one_another(tmp_path):
    """Muxers of segments move such times to 0, and those of other runs not."""
    format = next(iter(clips.read(filmed(tmp_path / "in.mkv"), None))).state.format
    base = format.time_base
    runs = [
        Timed(tuple(round((k - 9) / 25 / base) for k in ks), format, 0) for ks in (range(6), range(6, 15))
    ]
    source, target = filmed(tmp_path / "source.mp4", frames=15), tmp_path / "out.mp4"
    pixels = np.zeros((9, 48, 64, 3), np.uint8)
    clips.join((clips.write(run, pixels[: len(run.pts)], Encoding()) for run in runs), source, target)
    times = np.array(video(target)["times"], float)
    assert np.allclose(np.diff(times), 0.04, atol=0.002)
