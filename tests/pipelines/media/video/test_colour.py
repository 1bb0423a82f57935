"""Depth, colours, alpha and fields: as they were, or named."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from pipelines.media.video.clip import ClipFormat, Colour
from pipelines.media.video.colour import Colours, as_coded, as_seen
from tests.pipelines.media.video.samples import filmed, off, picture, restored, seen, video

DEEP = [
    ("libx265", "yuv420p10le", ".mp4"),
    ("libx264", "yuv420p10le", ".mkv"),
    ("libx264", "yuv422p10le", ".mp4"),
    ("libx265", "yuv444p12le", ".mp4"),
    ("libsvtav1", "yuv420p10le", ".mp4"),
    ("prores_ks", "yuv422p10le", ".mov"),
    ("ffv1", "gray16le", ".mkv"),
]


@pytest.mark.parametrize(("codec", "pixels", "suffix"), DEEP, ids=[f"{c}-{p}" for c, p, _ in DEEP])
def test_deep_clips_stay_deep(tmp_path, codec, pixels, suffix):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    filmed(source, codec=codec, pixels=pixels)
    runs, notes = restored(source, target)
    assert seen(runs).dtype == np.uint16
    assert video(target)["pixels"] == pixels
    assert off(source, target) < 3
    assert notes == []


HDR = (
    "hdr10=1:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    ":max-cll=1000,400"
)


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_keeps_its_tags_and_what_it_was_mastered_on(tmp_path, transfer):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    options = {"x265-params": f"log-level=none:pools=1:frame-threads=1:{HDR}"}
    tags = {"color_primaries": 9, "color_trc": transfer, "colorspace": 9, "color_range": 1}
    filmed(source, codec="libx265", pixels="yuv420p10le", options=options, **tags)
    _, notes = restored(source, target)
    after = video(target)
    assert (after["colour"], after["pixels"], after["codec"]) == ((9, transfer, 9, 1), "yuv420p10le", "hevc")
    assert _sides(target) == _sides(source)
    assert len(_sides(source)) == 2
    assert off(source, target) < 3
    assert notes == []


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix", "tags"),
    [
        ("libvpx-vp9", "yuv420p", ".webm", (1, 1, 1, 2)),
        ("libvpx", "yuv420p", ".webm", (5, 6, 5, 1)),
        ("mpeg4", "yuv420p", ".mp4", (1, 1, 1, 1)),
        ("ffv1", "yuv422p10le", ".mkv", (9, 18, 9, 1)),
        ("mjpeg", "yuvj420p", ".mov", (1, 1, 5, 2)),
    ],
)
def test_tags_that_stand_in_the_container_alone_are_kept(tmp_path, codec, pixels, suffix, tags):
    names = ("color_primaries", "color_trc", "colorspace", "color_range")
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    filmed(source, codec=codec, pixels=pixels, **dict(zip(names, tags, strict=True)))
    assert video(source)["colour"] == tags
    _, notes = restored(source, target)
    assert video(target)["colour"] == tags
    assert off(source, target) < 3
    assert notes == []


def test_prores_has_its_tags_in_its_frames(tmp_path):
    source, target = tmp_path / "in.mov", tmp_path / "out.mov"
    filmed(source, codec="prores_ks", pixels="yuv422p10le", color_primaries=9, color_trc=18, colorspace=9)
    restored(source, target)
    with av.open(str(target)) as clip:
        packet = next(clip.demux(video=0))
    assert tuple(bytes(packet)[22:25]) == (9, 18, 9)  # SMPTE RDD 36, frame_header


def _sides(path):
    names = ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
    with av.open(str(path)) as clip:
        frame = next(clip.decode(video=0))
        return {side.type.name: bytes(side) for side in frame.side_data if side.type.name in names}


def test_pq_is_shown_as_the_networks_know_light_and_comes_back():
    codes = np.arange(0, 65536, 64)  # 10 bits
    assert np.abs(as_coded()[as_seen()[codes]].astype(int) - codes).max() < 16
    assert (np.diff(as_seen().astype(int)) >= 0).all()
    white = round(0.5806 * 65535)  # 203 cd/m2
    assert as_seen()[white] / 65535 == pytest.approx(0.8, abs=0.002)


BARS = np.array(
    [
        (235, 235, 235),
        (235, 235, 16),
        (16, 235, 235),
        (16, 235, 16),
        (235, 16, 235),
        (235, 16, 16),
        (16, 16, 235),
    ]
)


@pytest.mark.parametrize("full", [1, 2])
@pytest.mark.parametrize("matrix", [1, 6, 9, 2])
@pytest.mark.parametrize("height", [48, 720])
def test_colour_bars_of_any_matrix(tmp_path, matrix, full, height):
    """Untagged, players take few lines for BT.601 and many for BT.709."""
    known = {1: Colorspace.ITU709, 6: Colorspace.ITU601, 9: Colorspace.BT2020}
    truth = known.get(matrix, Colorspace.ITU709 if height == 720 else Colorspace.ITU601)
    bars = np.repeat(BARS, 16, axis=0)[None].repeat(height, 0).astype(np.uint8)
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width = bars.shape[:2]
        context = stream.codec_context
        context.options = {"crf": "4", "preset": "ultrafast"}
        context.color_primaries = context.color_trc = context.colorspace = matrix
        context.color_range = full
        frame = av.VideoFrame.from_ndarray(bars, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=truth, dst_color_range=ColorRange(full)
        )
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    (run,), _ = restored(source, target)
    assert np.abs(run.window.pixels[0].astype(int) - bars).mean() < 2
    assert video(target)["colour"] == video(source)["colour"]
    assert off(source, target) < 1


@pytest.mark.parametrize(
    "pixels",
    [
        "yuv420p",
        "yuv422p",
        "yuv444p",
        "yuv440p",
        "yuv411p",
        "yuv420p10le",
        "yuva420p",
        "yuva444p10le",
        "gray",
        "gray12le",
        "gbrp",
        "gbrp10le",
        "rgb24",
        "bgr0",
        "bgra",
        "rgb48le",
    ],
)
@pytest.mark.parametrize("size", [(48, 64), (33, 47)])
def test_frames_come_back_as_they_were(pixels, size):
    format = _format(pixels)
    colours = Colours(format)
    shown = picture(height=size[0], width=size[1])
    shown = shown if format.deep else (shown >> 8).astype(np.uint8)
    if format.alpha:
        shown = np.dstack([shown, shown[..., 0]])
    first = colours.pixels(colours.frame(shown, pixels), size[::-1])
    again = colours.pixels(colours.frame(first, pixels), size[::-1])
    assert first.dtype == shown.dtype
    assert np.abs(again.astype(float) - first).mean() * 255 / np.iinfo(first.dtype).max < 0.1


def _format(pixels):
    return ClipFormat(
        ".mp4",
        "h264",
        "",
        Fraction(1, 25),
        Fraction(25),
        Fraction(0),
        pixels,
        Colour(2, 2, 2, 0),
        False,
        "",
        "",
    )


LOSSLESS = [
    ("ffv1", "bgr0", ".mkv"),
    ("huffyuv", "rgb24", ".avi"),
    ("png", "rgb24", ".mov"),
    ("qtrle", "argb", ".mov"),
    ("ffv1", "bgra", ".mkv"),
    ("png", "rgba", ".mov"),
    ("ffv1", "yuva444p", ".mkv"),
    ("ffv1", "gray", ".mkv"),
]


@pytest.mark.parametrize(("codec", "pixels", "suffix"), LOSSLESS, ids=[f"{c}-{p}" for c, p, _ in LOSSLESS])
def test_what_was_without_loss_stays_so(tmp_path, codec, pixels, suffix):
    source, target = filmed(tmp_path / f"in{suffix}", codec=codec, pixels=pixels), tmp_path / f"out{suffix}"
    _, notes = restored(source, target)
    assert video(target)["pixels"] == video(source)["pixels"]
    assert off(source, target) < 0.1
    for old, new in zip(_alpha(source), _alpha(target), strict=True):
        assert (old == new).all()
    assert notes == []


def _alpha(path):
    with av.open(str(path)) as clip:
        return [frame.to_ndarray(format="rgba")[..., 3] for frame in clip.decode(video=0)]


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix", "options"),
    [
        ("libvpx-vp9", "yuva420p", ".webm", {}),
        ("libvpx", "yuva420p", ".webm", {"auto-alt-ref": "0"}),
        ("prores_ks", "yuva444p10le", ".mov", {"profile": "4444"}),
    ],
)
def test_transparency_is_kept(tmp_path, codec, pixels, suffix, options):
    source = filmed(tmp_path / f"in{suffix}", codec=codec, pixels=pixels, options=options, frames=34)
    target = tmp_path / f"out{suffix}"
    _, notes = restored(source, target)
    assert notes == []
    before, after = (_transparency(path) for path in (source, target))
    assert len(before) == len(after) == 34
    assert np.abs(before - after).mean() < 0.02
    assert before.std() > 0.2


def _transparency(path):
    """[k, H, W] in [0, 1], by the decoder that sees it."""
    with av.open(str(path)) as clip:
        stream = clip.streams.video[0]
        name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.codec.canonical_name)
        decoder = av.CodecContext.create(name, "r") if name else stream.codec_context
        frames = [frame for packet in clip.demux(stream) if packet.size for frame in decoder.decode(packet)]
        frames += decoder.decode(None)
    return np.stack([frame.to_ndarray(format="rgba")[..., 3] for frame in frames]) / 255


def test_transparency_that_a_codec_has_not_is_named(tmp_path):
    source = filmed(tmp_path / "in.mov", codec="png", pixels="rgba")
    _, notes = restored(source, tmp_path / "out.mov", codec="h264")
    assert "its transparency is not kept" in notes


def test_what_a_codec_has_less_of_is_named(tmp_path):
    source = filmed(tmp_path / "in.mp4", codec="libx264", pixels="yuv422p10le")
    _, notes = restored(source, tmp_path / "out.mp4", codec="mpeg4")
    assert "its 10 bits became 8" in notes
    assert "its colours have fewer samples than they had" in notes


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_fields_become_whole_frames_and_that_is_said(tmp_path, codec):
    """A bright bar that moves between the fields: woven it would be combed."""
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    with av.open(str(source), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width = 48, 64
        context = stream.codec_context
        context.options = (
            {"flags": "+ildct+ilme", "x264-params": "tff=1"}
            if codec == "libx264"
            else {"flags": "+ildct+ilme"}
        )
        graph = av.filter.Graph()
        nodes = [
            graph.add_buffer(
                width=64, height=48, format=av.VideoFormat("yuv420p"), time_base=Fraction(1, 25)
            ),
            graph.add("setfield", "mode=tff"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*nodes).configure()
        for number in range(12):
            pixels = np.full((48, 64, 3), 40, np.uint8)
            for field in (0, 1):
                start = 4 * number + 2 * field
                pixels[field::2, start : start + 8] = 200
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            graph.vpush(frame)
            out.mux(stream.encode(graph.vpull()))
        out.mux(stream.encode())
    assert video(source)["interlaced"]
    runs, notes = restored(source, target)
    after = video(target)
    assert notes == ["its fields were merged into whole frames: it is no longer interlaced"]
    assert not after["interlaced"]
    assert after["times"] == video(source)["times"]
    shown = seen(runs)[6].astype(int).mean(-1)
    combed = np.abs(shown[2:-2:2] - (shown[1:-3:2] + shown[3:-1:2]) / 2).mean()
    assert combed < 4
