"""Clips read in runs of frames, each with its own time stamp: variable frame rates stay exact.

Frames are given upright, as players show them: rain falls downwards, however a camera was held.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from typing import Any

import av
from av.container import InputContainer
from av.filter import Graph
from numpy.typing import NDArray

from pipelines.media.video.clip import (
    FULL,
    ClipError,
    ClipFormat,
    Colour,
    File,
    Run,
    Timed,
    Turn,
    sides,
)
from pipelines.media.video.codecs import EncodeConfig, coder_of
from pipelines.media.video.colour import HIGH_DEFINITION, Colours, packed_alpha
from pipelines.media.video.damage import Damage, decoded, main_track, opened
from spair_core.footage import Reach, windows

RUN_FRAMES = 32
RUN_BYTES = 64 << 20
LEAST_FRAMES = 5
"""A run has so many frames, or so many bytes of them where that is less: memory is bounded. But of the
largest it has a few: with each run those beside it are restored as well."""

MAX_PIXELS = 8192 * 4608
SLOWEST, FASTEST = Fraction(1, 3600), 1000
"""Frames a second that a file may be believed to have."""
SAMPLES = {
    **dict.fromkeys(("nv12", "nv21"), "yuv420p"),
    **dict.fromkeys(("nv16", "uyvy422", "yuyv422"), "yuv422p"),
    **dict.fromkeys(("nv24", "nv42"), "yuv444p"),
    "p010le": "yuv420p10le",
    "p012le": "yuv420p12le",
    "p210le": "yuv422p10le",
    "pal8": "rgb24",
}
"""Pixel formats that differ from others by how samples are packed."""
INTERLACED = "its fields were merged into whole frames: it is no longer interlaced"


def read(
    file: File, reach: Reach | None, encode: EncodeConfig | None = None, *, max_pixels: int = MAX_PIXELS
) -> Iterator[Run]:
    """The frames of a clip, in runs with the frames around them within reach.

    What is missing or damaged of it is noted on the last. Raises ClipError: no clip, no video in it, too
    large, no frame that can be shown, or (where `encode` is given) it cannot be written so.
    """
    with opened(file) as container:
        track = main_track(container)
        size = track.codec_context.width, track.codec_context.height
        if size[0] * size[1] > max_pixels:
            raise ClipError(f"frames of {size[0]}x{size[1]} are over the limit")
        damage = Damage()
        lost: list[str] = []
        frames = _whole(decoded(container, track, damage), lost)
        first = next(frames, None)
        if first is None:
            raise ClipError("no frame of it can be decoded")
        format = format_of(track, first, file.suffix)
        if encode is not None:
            coder_of(format, encode, first.height, first.width)
        held: Run | None = None
        for run in _runs(chain([first], frames), format, reach, damage):
            if held is not None:
                yield held
            held = run
        assert held is not None
        yield replace(held, notes=damage.notes(container, track), lost=(*lost, *_left(container, first)))


def run_length(size: int) -> int:
    """Frames of a run, each of so many bytes."""
    return max(LEAST_FRAMES, min(RUN_FRAMES, -(-RUN_BYTES // size)))


def _runs(
    frames: Iterator[av.VideoFrame], format: ClipFormat, reach: Reach | None, damage: Damage
) -> Iterator[Run]:
    stamps: deque[tuple[int, int]] = deque()
    alphas: deque[NDArray[Any]] = deque()
    first = next(frames)
    size = (6 if format.deep else 3) * first.width * first.height
    shown = _shown(chain([first], frames), format, stamps, alphas, damage)
    for window in windows(shown, run_length(size), reach):
        pts, lengths = zip(*(stamps.popleft() for _ in window.own), strict=True)
        alpha = packed_alpha([alphas.popleft() for _ in window.own]) if format.alpha else b""
        timed = Timed(pts, format, lengths[-1], alpha)
        yield Run(window, timed, tuple(float(stamp * format.time_base) for stamp in pts))


def _shown(
    frames: Iterable[av.VideoFrame],
    format: ClipFormat,
    stamps: deque[tuple[int, int]],
    alphas: deque[NDArray[Any]],
    damage: Damage,
) -> Iterator[tuple[NDArray[Any], float]]:
    """Frames [H, W, 3] of one size with their times in seconds; time stamps, lengths and alphas are added."""
    colours = Colours(format)
    size: tuple[int, int] | None = None
    for number, (frame, stamp) in enumerate(_stamped(frames, format)):
        size = size or (frame.width, frame.height)
        if (frame.width, frame.height) != size:
            damage.resized = damage.resized or (number, f"{frame.width}x{frame.height}")
        elif _samples(frame) != format.pixels:
            damage.repacked = damage.repacked or (number, frame.format.name)
        pixels = colours.pixels(frame, size)
        stamps.append((stamp, _length(frame, format)))
        if format.alpha:
            alphas.append(pixels[..., 3])
            pixels = pixels[..., :3]
        yield format.turn.upright(pixels), float(stamp * format.time_base)


def _length(frame: av.VideoFrame, format: ClipFormat) -> int:
    if not frame.duration or not frame.time_base:
        return 0
    return round(frame.duration * frame.time_base / format.time_base)


def _stamped(frames: Iterable[av.VideoFrame], format: ClipFormat) -> Iterator[tuple[av.VideoFrame, int]]:
    """Every frame with a time stamp, in the clip's time base, that is larger than the one before."""
    last: int | None = None
    step = max(1, round(1 / (format.rate * format.time_base)))
    for frame in frames:
        known = frame.pts if frame.pts is not None else frame.dts
        stamp = known if known is not None else 0 if last is None else last + step
        if known is not None and frame.time_base and frame.time_base != format.time_base:
            stamp = round(stamp * frame.time_base / format.time_base)
        last = stamp if last is None else max(stamp, last + 1)
        yield frame, last


def _whole(frames: Iterator[av.VideoFrame], lost: list[str]) -> Iterator[av.VideoFrame]:
    """The frames, and in place of such as are two fields whole ones, of the same times."""
    for frame in frames:
        if frame.interlaced_frame:
            lost.append(INTERLACED)
            yield from _merged(chain([frame], frames))
            return
        yield frame


def _merged(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    graph: Graph | None = None
    shape = None
    for frame in frames:
        here = frame.width, frame.height, frame.format.name
        if graph is None or here != shape:
            if graph is not None:
                yield from _drained(graph)
            graph, shape = _merger(frame), here
        graph.vpush(frame)
        yield from _pulled(graph)
    if graph is not None:
        yield from _drained(graph)


def _merger(frame: av.VideoFrame) -> Graph:
    graph = Graph()
    nodes = (
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        ),
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    )
    graph.link_nodes(*nodes).configure()
    return graph


def _drained(graph: Graph) -> Iterator[av.VideoFrame]:
    graph.vpush(None)
    yield from _pulled(graph)


def _pulled(graph: Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (BlockingIOError, EOFError):
            return


def format_of(track: Any, frame: av.VideoFrame, suffix: str) -> ClipFormat:
    """What is to be kept of a clip, by its track and its first frame."""
    context = track.codec_context
    codec = context.codec.canonical_name
    return ClipFormat(
        suffix=suffix.lower(),
        codec=codec,
        profile=context.profile or "",
        time_base=Fraction(track.time_base or Fraction(1, 90000)),
        rate=_rate(track),
        aspect=Fraction(track.sample_aspect_ratio or 0),
        pixels=_samples(frame),
        colour=_colour(context, frame),
        tall=frame.height >= HIGH_DEFINITION,
        mastering=_mastering(frame),
        light=_light(frame),
        turn=Turn.of(sides(frame).get("DISPLAYMATRIX", b"")),
    )


def _samples(frame: av.VideoFrame) -> str:
    """The pixel format, whichever way its samples are packed."""
    name = frame.format.name.replace("yuvj", "yuv")
    return SAMPLES.get(name, f"{name[:-2]}le" if name.endswith("be") else name)


def _rate(track: Any) -> Fraction:
    """Frames a second, as the file tells it."""
    rates = (track.average_rate, track.guessed_rate, track.base_rate)
    return next((Fraction(rate) for rate in rates if rate and SLOWEST <= rate <= FASTEST), Fraction(25))


def _colour(context: Any, frame: av.VideoFrame) -> Colour:
    full = FULL if frame.format.name.startswith("yuvj") else int(frame.color_range)
    return replace(Colour.of(frame).or_else(Colour.of(context)), range=full)


def _mastering(frame: av.VideoFrame) -> str:
    """FFmpeg's AVMasteringDisplayMetadata in the terms of ST 2086: 0.00002 of chromaticity, 0.0001 cd/m2."""
    data = sides(frame).get("MASTERING_DISPLAY_METADATA", b"")
    if len(data) < 88 or not all(struct.unpack("=2i", data[80:88])):
        return ""
    pairs = struct.unpack("=20i", data[:80])
    ratios = [a / b if b else 0.0 for a, b in zip(pairs[::2], pairs[1::2], strict=True)]
    red_x, red_y, green_x, green_y, blue_x, blue_y, white_x, white_y = (round(r * 50000) for r in ratios[:8])
    darkest, brightest = (round(r * 10000) for r in ratios[8:])
    return (
        f"G({green_x},{green_y})B({blue_x},{blue_y})R({red_x},{red_y})WP({white_x},{white_y})"
        f"L({brightest},{darkest})"
    )


def _light(frame: av.VideoFrame) -> str:
    data = sides(frame).get("CONTENT_LIGHT_LEVEL", b"")
    return "{},{}".format(*struct.unpack("=2I", data[:8])) if len(data) >= 8 else ""


DYNAMIC = {
    "DOVI_METADATA": "Dolby Vision data",
    "DOVI_RPU_BUFFER": "Dolby Vision data",
    "DYNAMIC_HDR_PLUS": "HDR10+ data",
    "DYNAMIC_HDR_VIVID": "HDR Vivid data",
    "A53_CC": "closed captions within its pictures",
}
"""What hangs on single frames and cannot be written again, by FFmpeg's names."""


def _left(container: InputContainer, frame: av.VideoFrame) -> Iterator[str]:
    """What of a clip is not restored, or is lost with its frames."""
    kinds = {DYNAMIC[name] for name in sides(frame) if name in DYNAMIC}
    yield from (f"its {kind} are not kept" for kind in sorted(kinds))
    main = main_track(container)
    others = [one for one in container.streams.video if one is not main and not one.disposition & 1024]
    if others:
        yield "only its first track of pictures is restored; the others are kept as they were"
