"""Segments and all else that a clip had, in one file of the container that its name says."""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.error import FFmpegError

from pipelines.media.video.clip import UNTOLD, ClipError, ClipFormat, Colour, File, depth_of, sides, to_read
from pipelines.media.video.codecs import CODERS, as_written
from pipelines.media.video.containers import FAST_START, Container, container_of
from pipelines.media.video.damage import Damage, decoded, has_alpha, main_track, opened
from pipelines.media.video.reading import DYNAMIC, format_of
from pipelines.media.video.tracks import Tracks, kept_metadata, missing
from pipelines.media.video.writing import read_told

SELF_TOLD = frozenset({"h264", "hevc", "av1", "vp8", "vp9"})
"""Codecs of which a track needs to know no more than their headers say: it may keep all that the source's
track says beside them (mastering, spheres, mirrors)."""
PACKETS_OF_M2TS = 192
RGB = 0
"""The number of a matrix that is none."""
WRITE_BYTES = 1 << 18
"""FFmpeg gives at once, of a file that it does not write by itself."""


def join(segments: Iterable[bytes], source: File, target: File) -> Sequence[str]:
    """Write a clip to `target`: the segments' video, and all else of `source` as it is.

    A remote target is written as its bytes come. Gives what of the source could not be kept. Raises ClipError
    where the container cannot hold what was encoded.
    """
    container = container_of(target.suffix)
    remaining = iter(segments)
    first = next(remaining)
    start = _first_frame(source)
    try:
        with (
            opened(source) as original,
            av.open(io.BytesIO(first), "r") as template,
            _created(target, container, _options(container, source, original)) as out,
        ):
            tracks = Tracks(source, original, container, template.streams.video[0])
            format = format_of(main_track(original), start, target.suffix)
            video = tracks.add_to(out, lambda: _video(out, original, template, format, start))
            _mux_all(chain([first], remaining), out, video, container, format, tracks)
            lost = [*tracks.lost, *tracks.left_out(), *_changed(format, template.streams.video[0])]
            if FAST_START.items() <= container.options.items() and not isinstance(target, Path):
                lost.append("its index is at its end: players on the network begin later")
    except (FFmpegError, ValueError) as error:
        if isinstance(error, ClipError):
            raise
        raise ClipError(f"its streams cannot be joined as {target.suffix}: {error}") from error
    return [*lost, *missing(source, target, tracks)]


@contextmanager
def _created(target: File, container: Container, options: dict[str, str]) -> Iterator[OutputContainer]:
    with ExitStack() as stack:
        if isinstance(target, Path):
            file: Any = str(target)
        else:
            file = stack.enter_context(target.create())
            # To stand in front, the index would have to be written before what it tells of.
            options = {name: value.replace("+faststart", "") or "0" for name, value in options.items()}
            options["fflags"] = "+bitexact"  # no random marks: what is large is written twice, and alike
        with av.open(
            file, "w", format=container.muxer, container_options=options, buffer_size=WRITE_BYTES
        ) as out:
            yield out


def _first_frame(source: File) -> av.VideoFrame:
    with opened(source) as container:
        frame = next(decoded(container, main_track(container), Damage()), None)
    if frame is None:
        raise ClipError("no frame of it can be decoded")
    return frame


def _options(container: Container, source: File, original: Any) -> dict[str, str]:
    options = dict(container.options)
    if container.muxer == "mpegts":
        options["mpegts_m2ts_mode"] = str(int(_stamped_packets(source)))
    # What cameras and phones say under names of their own has a place of its own, which players read less.
    if "movflags" in options and any("." in key for key in original.metadata):
        options["movflags"] += "+use_metadata_tags"
    return options


def _stamped_packets(source: File) -> bool:
    """Whether it is a transport stream as camcorders have it, each packet with its arrival time."""
    with to_read(source) as file:
        data = file.read(3 * PACKETS_OF_M2TS)
    return len(data) == 3 * PACKETS_OF_M2TS and {data[4 + k * PACKETS_OF_M2TS] for k in range(3)} == {0x47}


def _video(
    out: OutputContainer, original: Any, template: Any, format: ClipFormat, frame: av.VideoFrame
) -> Any:
    """The track of the restored frames."""
    made, old = template.streams.video[0], main_track(original)
    codec = made.codec_context.codec.canonical_name
    beside = sides(frame)
    if codec == format.codec and codec in SELF_TOLD and not DYNAMIC.keys() & beside.keys():
        video = out.add_stream_from_template(old, opaque=True)
        for name in ("extradata", "pix_fmt", "width", "height", "profile"):
            value = getattr(made.codec_context, name)
            if value is not None:
                setattr(video.codec_context, name, value)
        video.codec_context.bit_rate = 0
    else:
        video = out.add_stream_from_template(made, opaque=True)
        if matrix := beside.get("DISPLAYMATRIX"):
            video.set_display_matrix(memoryview(matrix).cast("i").tolist())
    return _told(video, old, made, format, container_of(format.suffix))


def _told(video: Any, old: Any, made: Any, format: ClipFormat, container: Container) -> Any:
    context = video.codec_context
    context.framerate = format.rate
    context.field_order = 1
    context.sample_aspect_ratio = format.aspect
    _colour(made, format).put_on(context)
    video.time_base = 1 / format.rate if container.counts else format.time_base
    video.metadata.clear()
    video.metadata.update(kept_metadata(old))
    if has_alpha(made):
        video.metadata["alpha_mode"] = "1"
    video.disposition = old.disposition
    if container.muxer == "mpegts":
        video.id = old.id
    if tag := _tag(old, made, container):
        context.codec_tag = tag
    return video


def _colour(made: Any, format: ClipFormat) -> Colour:
    """The colour tags of coded frames; where their codec has no place for one, the clip's own."""
    context = made.codec_context
    own = as_written(CODERS[context.codec.canonical_name], format).colour
    if own.matrix == RGB and not context.format.is_rgb:
        own = replace(own, matrix=UNTOLD.matrix)
    return Colour.of(context).or_else(own)


def _tag(old: Any, made: Any, container: Container) -> str:
    """Four letters that say more than the codec: Apple's players show HEVC with hvc1, ap4h is ProRes 4444."""
    codec = made.codec_context.codec.canonical_name
    if container.hides and codec == "hevc":
        return "hev1" if _letters(old) == "hev1" else "hvc1"
    return made.codec_context.codec_tag if codec in ("prores", "utvideo") else ""


def _letters(track: Any) -> str:
    try:
        return str(track.codec_context.codec_tag)
    except UnicodeDecodeError:  # damaged
        return ""


def _mux_all(
    segments: Iterable[bytes],
    out: OutputContainer,
    video: Any,
    container: Container,
    format: ClipFormat,
    tracks: Tracks,
) -> None:
    packets = _chained(_counted(_video_packets(segments, video, container), container, format), format)
    for packet in heapq.merge(packets, tracks.packets(), key=_when):
        out.mux(packet)


def _when(packet: av.Packet) -> Fraction:
    return (packet.dts or 0) * Fraction(packet.time_base)


def _counted(packets: Iterator[av.Packet], container: Container, format: ClipFormat) -> Iterator[av.Packet]:
    """In a container that counts frames, each in the place that its time falls into."""
    last = -1
    for packet in packets:
        if container.counts:
            last = max(last + 1, round(_when(packet) * format.rate))
            packet.time_base = 1 / format.rate
            packet.pts = packet.dts = last
            packet.duration = 1
        yield packet


def _chained(packets: Iterator[av.Packet], format: ClipFormat) -> Iterator[av.Packet]:
    """The packets, each lasting until the next, and the last as long as it did."""
    held = next(packets)
    for packet in packets:
        held.duration = int(packet.pts or 0) - int(held.pts or 0)
        yield held
        held = packet
    held.duration = held.duration or max(1, round(1 / (format.rate * held.time_base)))
    yield held


def _video_packets(segments: Iterable[bytes], video: Any, target: Container) -> Iterator[av.Packet]:
    for data in segments:
        with av.open(io.BytesIO(data), "r") as container:
            stream = container.streams.video[0]
            base, moved = Fraction(stream.time_base or 1), None
            # Some have no place for headers but before the pictures.
            headed = BitStreamFilterContext("dump_extra=freq=keyframe", stream) if target.headed else None
            length, first = read_told(_said(container).get("comment", ""))
            for packet in container.demux(stream):
                if packet.size:
                    stamp = int(packet.pts or 0)
                    if moved is None:
                        moved = 0 if first is None else round(first / base) - stamp
                    packet.pts = stamp + moved
                    packet.duration = round(length / base)
                    for one in headed.filter(packet) if headed else [packet]:
                        # Set before the container closes: a packet must not point to a stream that is gone.
                        one.stream = video
                        one.time_base = base
                        one.dts = one.pts
                        yield one


def _said(stream: Any) -> dict[str, str]:
    return {key.lower(): value for key, value in stream.metadata.items()}


def _changed(format: ClipFormat, made: Any) -> Iterator[str]:
    """What the video's new codec does not have of the old one."""
    codec, pixels = made.codec_context.codec.canonical_name, made.codec_context.pix_fmt.replace("yuvj", "yuv")
    if codec != format.codec:
        yield f"its video is in {codec} now, no longer in {format.codec}"
    kept = codec in SELF_TOLD if codec == format.codec else codec in ("h264", "hevc")
    if (format.mastering or format.light) and not kept:
        yield "what it was mastered on is not kept"
    if depth_of(pixels) < min(depth_of(format.pixels), 10 if codec == "prores" else 16):
        yield f"its {depth_of(format.pixels)} bits became {depth_of(pixels)}"
    if _chroma(pixels) < _chroma(format.pixels):
        yield "its colours have fewer samples than they had"
    if format.alpha and not (
        has_alpha(made) or any(one.is_alpha for one in av.VideoFormat(pixels).components)
    ):
        yield "its transparency is not kept"


def _chroma(pixels: str) -> int:
    shape = av.VideoFormat(pixels, 16, 16)
    if len(shape.components) < 3:
        return 0
    return 256 if shape.is_rgb else shape.chroma_width() * shape.chroma_height()
