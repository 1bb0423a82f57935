"""All that a clip holds beside its pictures is there again, or named."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from pipelines.media.video import container_of
from tests.pipelines.media.video.samples import filmed, frame_of, restored, video


class Recorder:
    """A clip with tracks of any kind, written packet by packet."""

    def __init__(self, path, **options):
        muxer = container_of(path.suffix).muxer
        self.out = av.open(str(path), "w", format=muxer, container_options=options)
        self.video = self.out.add_stream("libx264", rate=25)
        self.video.height, self.video.width = 48, 64
        self.packets = []

    def sound(self, pitch, codec="aac", rate=16000, **tags):
        stream = self.out.add_stream(codec, rate=rate, layout="mono")
        stream.disposition = tags.pop("disposition", 0)
        stream.metadata.update(tags)
        tone = np.sin(np.arange(16000) / pitch).astype(np.float32)[None]
        if stream.format.name in ("u8", "s16"):
            tone = (np.round(100 * tone) + 128).astype({"u8": np.uint8, "s16": np.int16}[stream.format.name])
        frame = av.AudioFrame.from_ndarray(tone, format=stream.format.name, layout="mono")
        frame.rate, frame.pts = rate, 0
        self.packets.append(lambda: [*stream.encode(frame), *stream.encode()])
        return self

    def data(self, template, packet):
        stream = self.out.add_stream_from_template(template)
        packet.stream = stream
        self.packets.append(lambda: [packet])
        return self

    def close(self):
        for number in range(25):
            frame = frame_of(number, "yuv420p", (48, 64), Fraction(1, 25))
            self.out.mux(self.video.encode(frame))
        self.out.mux(self.video.encode())
        for packets in self.packets:
            self.out.mux(packets())
        self.out.close()


def tracks(path):
    """Type, language, title (in MP4 its name), disposition and packets of each track but the pictures."""
    with av.open(str(path)) as clip:
        packets = {}
        for packet in clip.demux():
            if packet.size:
                packets.setdefault(packet.stream.index, []).append(bytes(packet))
        main = clip.streams.best("video").index
        return [
            (
                stream.type,
                _tag(stream, "language"),
                _tag(stream, "title") or _tag(stream, "name"),
                int(stream.disposition),
                packets.get(stream.index, []),
            )
            for stream in clip.streams
            if stream.index != main
        ]


def _tag(stream, name):
    return {key.lower(): value for key, value in stream.metadata.items()}.get(name, "")


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov", ".ts"])
def test_several_sound_tracks_with_what_is_said_of_them(tmp_path, suffix):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    recorder = Recorder(source)
    recorder.sound(9, language="deu", title="Cabin")
    recorder.sound(5, language="fra", disposition=1)
    recorder.close()
    _, notes = restored(source, target)
    before = tracks(source)
    assert [title for _, _, title, *_ in before] == (["", ""] if suffix == ".ts" else ["Cabin", ""])
    assert tracks(target) == before
    assert notes == []


def test_subtitles_forced_or_not(tmp_path):
    plain, source, target = tmp_path / "plain.mkv", tmp_path / "in.mkv", tmp_path / "out.mkv"
    filmed(plain)
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    with (
        av.open(str(plain)) as clip,
        av.open(str(tmp_path / "a.srt")) as text,
        av.open(str(source), "w") as out,
    ):
        copies = [out.add_stream_from_template(clip.streams.video[0])]
        copies += [out.add_stream_from_template(text.streams[0]) for _ in range(2)]
        copies[1].metadata.update(language="eng", title="All")
        copies[2].disposition = 64
        said = [packet for packet in text.demux() if packet.size]
        for packet in clip.demux(video=0):
            if packet.size:
                packet.stream = copies[0]
                out.mux(packet)
        for copy in copies[1:]:
            for packet in said:
                packet.stream = copy
                out.mux(packet)
    _, notes = restored(source, target)
    assert tracks(target) == tracks(source)
    assert [kind for kind, *_ in tracks(target)] == ["subtitle"] * 2
    assert notes == []


@pytest.mark.parametrize("kind", ["subtitle", "audio"])
def test_what_stands_at_the_same_time_stays_there(tmp_path, kind):
    """Lines shown together, and sound in packets shorter than a container's tick."""
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    recorder = Recorder(source)
    with av.open(str(tmp_path / "a.srt")) as text:
        if kind == "subtitle":
            stream = recorder.out.add_stream_from_template(text.streams[0])
        else:
            stream = recorder.out.add_stream("pcm_s16le", rate=16000, layout="mono")
        recorder.packets.append(lambda: [short(number, stream) for number in range(100)])
        recorder.close()
    _, notes = restored(source, target)
    assert notes == []
    assert stamps(target, kind) == stamps(source, kind) == [number * 8 // 10 for number in range(100)]


def short(number, stream):
    packet = av.Packet(bytes(26))
    packet.pts = packet.dts = number * 8 // 10
    packet.time_base, packet.stream = Fraction(1, 1000), stream
    return packet


def stamps(path, kind):
    with av.open(str(path)) as clip:
        return [
            packet.pts
            for packet in clip.demux(**{{"subtitle": "subtitles"}.get(kind, kind): 0})
            if packet.size
        ]


@pytest.mark.parametrize("codec", ["mp2", "ac3", "aac"])
def test_sound_in_a_container_that_counts_frames(tmp_path, codec):
    source, target = tmp_path / "in.avi", tmp_path / "out.avi"
    Recorder(source).sound(9, codec, 44100).close()
    _, notes = restored(source, target)
    assert notes == []
    assert heard(target) == heard(source)
    assert tracks(target) == tracks(source)


def heard(path):
    with av.open(str(path)) as clip:
        return [frame.pts * frame.time_base for frame in clip.decode(audio=0)]


def test_attachments_and_covers(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(stream, "PNG")
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    recorder = Recorder(source)
    recorder.out.add_attachment("font.ttf", "application/x-truetype-font", b"letters" * 99)
    recorder.out.add_attachment("cover.png", "image/png", stream.getvalue())
    recorder.close()
    _, notes = restored(source, target)
    with av.open(str(target)) as clip:
        (font,) = clip.streams.attachments
        assert (font.name, font.data) == ("font.ttf", b"letters" * 99)
        (cover,) = [one for one in clip.streams.video if one.disposition & 1024]
        assert next(bytes(one) for one in clip.demux(cover) if one.size) == stream.getvalue()
    assert notes == []
    restored(source, tmp_path / "out.mp4")


def test_a_cover_of_mp4(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(stream, "PNG")
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    plain, source, target = filmed(tmp_path / "plain.mp4"), tmp_path / "in.mp4", tmp_path / "out.mp4"
    with (
        av.open(str(plain)) as clip,
        av.open(str(tmp_path / "a.png")) as art,
        av.open(str(source), "w") as out,
    ):
        copy = out.add_stream_from_template(clip.streams.video[0])
        cover = out.add_stream_from_template(art.streams.video[0], opaque=True)
        cover.disposition = 1024
        for packet in clip.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
        packet = next(art.demux())
        packet.stream, packet.pts, packet.dts = cover, 0, 0
        out.mux(packet)
    _, notes = restored(source, target)
    assert tracks(target) == tracks(source) != []
    assert notes == []


def test_a_clock(tmp_path):
    source, target = tmp_path / "in.mov", tmp_path / "out.mov"
    recorder = Recorder(source)
    recorder.video.metadata["timecode"] = "01:02:03:04"
    recorder.close()
    _, notes = restored(source, target)
    assert [kind for kind, *_ in tracks(target)] == ["data"]
    assert tracks(target)[0][4] == tracks(source)[0][4]
    assert notes == []


def test_telemetry(tmp_path):
    """A track of a kind that FFmpeg knows by nothing but its four letters."""
    source, target = tmp_path / "in.ts", tmp_path / "out.ts"
    recorder = Recorder(source)
    stream = recorder.out.add_data_stream("klv")
    packet = av.Packet(b"position 48.2 16.4")
    packet.stream, packet.pts, packet.dts = stream, 0, 0
    packet.time_base = Fraction(1, 90000)
    recorder.packets.append(lambda: [packet])
    recorder.close()
    _, notes = restored(source, target)
    assert [(kind, data) for kind, *_, data in tracks(target)] == [("data", [b"position 48.2 16.4"])]
    assert notes == []


def test_what_a_container_cannot_hold_is_named(tmp_path):
    source = tmp_path / "in.mkv"
    recorder = Recorder(source)
    recorder.out.add_attachment("font.ttf", "application/x-truetype-font", b"letters" * 99)
    recorder.sound(9, title="Cabin")
    recorder.close()
    source.rename(tmp_path / "in.mp4")
    _, notes = restored(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert any("attachment" in note and "font.ttf" in note and "not kept" in note for note in notes)
    assert [kind for kind, *_ in tracks(tmp_path / "out.mp4")] == ["audio"]


def test_a_track_that_is_one_too_many_is_named(tmp_path):
    """Each of them alone would be taken."""
    source, target = tmp_path / "in.mkv", tmp_path / "out.flv"
    Recorder(source).sound(9, rate=44100).sound(5, "pcm_u8", 44100).close()
    _, notes = restored(source, target)
    assert [kind for kind, *_ in tracks(target)] == ["audio"]
    assert notes == ["its sound track 2 (pcm_u8) is not kept: .flv cannot hold it"]


def test_what_is_not_kept_costs_no_other_track(tmp_path):
    source, target = tmp_path / "in.mkv", tmp_path / "out.flv"
    Recorder(source).sound(5, "pcm_s16be", 48000).sound(9, rate=44100).close()
    _, notes = restored(source, target)
    assert notes == ["its sound track 1 (pcm_s16be) is not kept: .flv cannot hold it"]
    assert [track[-1] for track in tracks(target)] == [tracks(source)[1][-1]]


def test_a_damaged_packet_of_sound_costs_itself(tmp_path):
    """FFmpeg tells of it when it writes another track's."""
    whole, source, target = tmp_path / "whole.mkv", tmp_path / "in.mkv", tmp_path / "out.ts"
    Recorder(whole).sound(9).close()
    with av.open(str(whole)) as clip, av.open(str(source), "w") as out:
        copies = [out.add_stream_from_template(stream) for stream in clip.streams]
        for number, packet in enumerate(one for one in clip.demux() if one.size):
            short = number == 9 and packet.stream.type == "audio"
            damaged = av.Packet(b"?") if short else packet
            damaged.pts, damaged.dts, damaged.time_base = packet.pts, packet.dts, packet.time_base
            damaged.stream = copies[packet.stream.index]
            out.mux(damaged)
    _, notes = restored(source, target)
    assert notes == ["its sound track 1 (aac) is not kept whole: a packet of it cannot be written"]
    before, after = (len(tracks(path)[0][-1]) for path in (source, target))
    assert after == before - 1
    assert len(video(target)["times"]) == 25


def test_chapters_and_what_the_file_says(tmp_path):
    for suffix in (".mkv", ".mp4", ".mov"):
        source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
        recorder = Recorder(source)
        recorder.out.metadata.update(title="Drive", date="2026", location="+48.2000+016.3700/")
        recorder.out.set_chapters(
            [
                {"id": k, "start": 500 * k, "end": 500 * k + 500, "time_base": Fraction(1, 1000),
                 "metadata": {"title": f"Part {k}"}}
                for k in range(2)
            ]
        )  # fmt: skip
        recorder.close()
        _, notes = restored(source, target)
        with av.open(str(source)) as before, av.open(str(target)) as after:
            assert [c["metadata"] for c in after.chapters()] == [c["metadata"] for c in before.chapters()]
            assert len(after.chapters()) == 2
            assert len(after.streams) == len(before.streams)
            ours, theirs = ({k.lower(): v for k, v in clip.metadata.items()} for clip in (before, after))
            assert {k: v for k, v in ours.items() if "encoder" not in k} == {
                k: v for k, v in theirs.items() if "encoder" not in k
            }
        assert notes == [], suffix


def test_what_phones_say_in_words_of_their_own(tmp_path):
    source, target = tmp_path / "in.mov", tmp_path / "out.mov"
    recorder = Recorder(source, movflags="use_metadata_tags")
    recorder.out.metadata.update({"com.apple.quicktime.make": "Apple", "com.apple.quicktime.model": "X"})
    recorder.close()
    _, notes = restored(source, target)
    with av.open(str(target)) as clip:
        assert clip.metadata["com.apple.quicktime.make"] == "Apple"
    assert notes == []


def test_a_second_track_of_pictures_is_kept_and_said(tmp_path):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    plain = filmed(tmp_path / "plain.mkv")
    with av.open(str(plain)) as clip, av.open(str(source), "w") as out:
        copies = [out.add_stream_from_template(clip.streams.video[0]) for _ in range(2)]
        for packet in clip.demux(video=0):
            for copy in copies if packet.size else []:
                packet.stream = copy
                out.mux(packet)
    _, notes = restored(source, target)
    assert notes == ["only its first track of pictures is restored; the others are kept as they were"]
    assert tracks(target) == tracks(source)


def test_turned_and_mirrored(tmp_path):
    for degrees, flip in ((90, False), (180, False), (0, True)):
        source = tmp_path / "in.mp4"
        recorder = Recorder(source)
        recorder.video.set_display_rotation(degrees, hflip=flip)
        recorder.close()
        for codec in ("source", "mpeg4"):
            restored(source, tmp_path / "out.mp4", codec=codec)
            assert _matrix(tmp_path / "out.mp4") == _matrix(source) != b""


def _matrix(path):
    with av.open(str(path)) as clip:
        return bytes(next(clip.decode(video=0)).side_data["DISPLAYMATRIX"])


def test_wide_samples_stay_wide(tmp_path):
    source = filmed(tmp_path / "in.mkv", sample_aspect_ratio=Fraction(16, 11))
    for codec in ("source", "mpeg4"):
        restored(source, tmp_path / "out.mkv", codec=codec)
        assert video(tmp_path / "out.mkv")["aspect"] == video(source)["aspect"] == Fraction(16, 11)
