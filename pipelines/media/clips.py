"""Clips: decoded in runs of frames, encoded run by run, joined without encoding again.

Every frame keeps its own time stamp (variable frame rates stay exact), and sound, subtitles, metadata,
aspect ratio, rotation and colour tags are carried over. Runs are encoded independently of one another,
so many machines can share a clip; there are no B-frames, so the packets of consecutive runs simply
follow one another.
"""

from __future__ import annotations

import heapq
import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from pipelines.media.containers import CONTAINERS, container_of
from pipelines.media.medium import EncodeConfig, Encoding, Medium, MediumError, Piece
from spair_core.footage import Reach, windows

RUN_FRAMES = 32
RUN_BYTES = 32 << 20
"""A run has so many frames, or so many bytes of them where that is less: memory is bounded."""

MAX_PIXELS = 8192 * 4608
SEGMENT_FORMAT = "nut"  # keeps any time base exactly
BT709 = 1
FULL_RANGE = 2


class ClipError(MediumError):
    """These bytes are not a clip that can be restored; the message says why."""


@dataclass(frozen=True)
class ClipFormat:
    """What an encoded run must share with its clip."""

    codec: str
    time_base: Fraction
    rate: Fraction
    aspect: Fraction
    rotation: int
    bt709: bool
    full_range: bool


@dataclass(frozen=True)
class Timed:
    """What encoding a run takes beside its pixels: its frames' time stamps in time bases, and the format."""

    pts: tuple[int, ...]
    format: ClipFormat


def read(path: Path, reach: Reach | None, *, max_pixels: int = MAX_PIXELS) -> Iterator[Piece]:
    """The frames of a local clip, in runs with the frames around them within reach.

    Raises ClipError: no clip, no video in it, too large, damaged, or cut short (and after which frame).
    """
    with _opened(path) as container:
        if not container.streams.video:
            raise ClipError("it holds no video")
        stream = container.streams.video[0]
        if stream.codec_context.width * stream.codec_context.height > max_pixels:
            raise ClipError(
                f"frames of {stream.codec_context.width}x{stream.codec_context.height} are over the limit"
            )
        stream.thread_type = "AUTO"
        stamped = _stamped(container)
        first, stamp = next(stamped)
        format = _format(container, first, path.suffix)
        pts: deque[int] = deque()
        frames = _decoded(chain([(first, stamp)], stamped), format, pts)
        run = max(1, min(RUN_FRAMES, -(-RUN_BYTES // (3 * first.width * first.height))))
        for window in windows(frames, run, reach):
            timed = Timed(tuple(pts.popleft() for _ in window.own), format)
            yield Piece(window, timed, tuple(float(stamp * format.time_base) for stamp in timed.pts))


def _decoded(
    stamped: Iterable[tuple[av.VideoFrame, int]], format: ClipFormat, pts: deque[int]
) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Frames uint8 [H, W, 3] with their times in seconds; their time stamps are added to `pts`."""
    size: tuple[int, ...] | None = None
    for frame, stamp in stamped:
        pixels = _to_rgb(frame, format)
        size = size or pixels.shape
        if pixels.shape != size:
            raise ClipError(f"the frame size changes from {size[1::-1]} to {pixels.shape[1::-1]}")
        pts.append(stamp)
        yield pixels, float(stamp * format.time_base)


def _stamped(container: InputContainer) -> Iterator[tuple[av.VideoFrame, int]]:
    """Every frame with a time stamp that is larger than the one before."""
    stream = container.streams.video[0]
    last, count, end = None, 0, 0.0
    try:
        for packet in container.demux():
            if packet.pts is not None and packet.time_base is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index != stream.index:
                continue
            for frame in packet.decode():
                if not isinstance(frame, av.VideoFrame):
                    continue
                stamp = next((s for s in (frame.pts, frame.dts) if s is not None), (last or 0) + 1)
                last = stamp if last is None else max(stamp, last + 1)
                count += 1
                yield frame, last
    except FFmpegError as error:
        raise ClipError(f"damaged after {count} frames: {error.strerror}") from error
    _check_complete(container, count, end)


def _check_complete(container: InputContainer, count: int, end: float) -> None:
    # By what the file is and not by its name: an AVI's index, whatever it is called, counts empty frames too.
    promised = container.streams.video[0].frames if "mp4" in container.format.name else 0
    if count == 0:
        raise ClipError("no frame of it can be decoded")
    if count < promised - max(2, promised // 100):
        raise ClipError(f"cut short: {count} of {promised} frames are there")
    if not promised and container.duration:
        length = container.duration / av.time_base
        if end < length - max(1.0, 0.02 * length):
            raise ClipError(f"cut short: {end:.1f} of {length:.1f} seconds are there ({count} frames)")


def _format(container: InputContainer, frame: av.VideoFrame, suffix: str) -> ClipFormat:
    stream = container.streams.video[0]
    return ClipFormat(
        codec=container_of(suffix).codec,
        time_base=stream.time_base or Fraction(1, 90000),
        rate=stream.average_rate or stream.guessed_rate or Fraction(25),
        aspect=stream.sample_aspect_ratio or Fraction(0, 1),
        rotation=frame.rotation,
        bt709=int(frame.colorspace) == BT709,
        full_range=int(frame.color_range) == FULL_RANGE,
    )


def _to_rgb(frame: av.VideoFrame, format: ClipFormat) -> NDArray[np.uint8]:
    converted = frame.reformat(
        format="rgb24",
        src_colorspace=_colorspace(format),
        src_color_range=_color_range(format),
        dst_color_range=ColorRange.JPEG,
    )
    return np.asarray(converted.to_ndarray(), dtype=np.uint8)


def _colorspace(format: ClipFormat) -> Colorspace:
    return Colorspace.ITU709 if format.bt709 else Colorspace.ITU601


def _color_range(format: ClipFormat) -> ColorRange:
    return ColorRange.JPEG if format.full_range else ColorRange.MPEG


def write(state: Timed, pixels: NDArray[np.uint8], encoding: Encoding) -> bytes:
    """A run's frames as a video segment on its own, for `join`."""
    format = state.format
    stream_bytes = io.BytesIO()
    with av.open(stream_bytes, "w", format=SEGMENT_FORMAT) as container:
        stream: Any = container.add_stream(format.codec, rate=format.rate)
        height, width = pixels.shape[1:3]
        # For H.264 and VP9, chroma at half resolution needs even sides.
        even = height % 2 == width % 2 == 0
        stream.pix_fmt = "yuv420p" if even or format.codec == "mpeg4" else "yuv444p"
        stream.width, stream.height = width, height
        context = stream.codec_context
        context.time_base, context.max_b_frames, context.thread_count = format.time_base, 0, 1
        context.sample_aspect_ratio = format.aspect
        context.options = _options(format.codec, encoding.clips)
        if format.bt709:
            context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = FULL_RANGE if format.full_range else 1
        for frame, stamp in zip(pixels, state.pts, strict=True):
            container.mux(stream.encode(_to_frame(frame, stamp, format, stream.pix_fmt)))
        container.mux(stream.encode())
    return stream_bytes.getvalue()


def _options(codec: str, config: EncodeConfig) -> dict[str, str]:
    if codec == "libx264":
        return {"crf": str(config.crf), "preset": config.preset}
    if codec == "mpeg4":
        return {"qmin": "2", "qmax": "3", "b": "100000000"}
    # Without hidden reference frames, packets and frames stay one to one.
    return {
        "crf": str(config.crf),
        "b": "0",
        "deadline": "good",
        "cpu-used": "4",
        "auto-alt-ref": "0",
        "lag-in-frames": "0",
    }


def _to_frame(pixels: NDArray[np.uint8], stamp: int, format: ClipFormat, pix_fmt: str) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
        format=pix_fmt,
        src_color_range=ColorRange.JPEG,
        dst_colorspace=_colorspace(format),
        dst_color_range=_color_range(format),
    )
    frame.pts, frame.time_base = stamp, format.time_base
    return frame


def join(segments: Iterable[bytes], source: Path, target: Path) -> Sequence[str]:
    """Write a clip to `target`: the segments' video, and all else of `source` as it is.

    Gives what of it could not be kept. Raises ClipError where the source's sound cannot be read or the
    container cannot hold it.
    """
    options = dict(container_of(target.suffix).options)
    try:
        with _opened(source) as original, av.open(str(target), "w", options=options) as out:
            out.metadata.update(original.metadata)
            _mux_all(segments, original, out, _rotation(source))
            chapters = original.chapters()
            if chapters:
                out.set_chapters(chapters)
    except FFmpegError as error:
        raise ClipError(f"its streams cannot be joined as {target.suffix}: {error}") from error
    return ()


def _rotation(source: Path) -> int:
    with _opened(source) as container:
        return next(container.decode(video=0)).rotation


def _mux_all(
    segments: Iterable[bytes], original: InputContainer, out: OutputContainer, rotation: int
) -> None:
    remaining = iter(segments)
    first = next(remaining)
    with av.open(io.BytesIO(first), "r") as template:
        video: Any = out.add_stream_from_template(template.streams.video[0])
        video.time_base = template.streams.video[0].time_base
    if rotation:
        video.set_display_rotation(rotation)
    kept = [*original.streams.audio, *original.streams.subtitles]
    copies = {stream.index: out.add_stream_from_template(stream) for stream in kept}
    for packet in heapq.merge(
        _chained(_video_packets(chain([first], remaining), video)),
        _copied_packets(original, kept, copies),
        key=lambda packet: (packet.dts or 0) * packet.time_base,
    ):
        out.mux(packet)


def _copied_packets(original: InputContainer, kept: list[Any], copies: dict[int, Any]) -> Iterator[av.Packet]:
    if kept:
        for packet in original.demux(kept):
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                yield packet


def _chained(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """The packets, each lasting until the next, and the last as long as the one before it."""
    held, length = next(packets), 0
    for packet in packets:
        length = held.duration = int(packet.pts or 0) - int(held.pts or 0)
        yield held
        held = packet
    if length:
        held.duration = length
    yield held


def _video_packets(segments: Iterable[bytes], video: Any) -> Iterator[av.Packet]:
    for data in segments:
        with av.open(io.BytesIO(data), "r") as container:
            for packet in container.demux(video=0):
                if packet.pts is not None:
                    # Set before the container closes: a packet must not point to a stream that is gone.
                    packet.stream = video
                    packet.dts = packet.pts
                    yield packet


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (FFmpegError, ValueError) as error:
        raise ClipError(
            f"not a clip that can be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    with container:
        yield container


CLIP = Medium("clip", frozenset().union(*(one.suffixes for one in CONTAINERS)), read, write, join)
