"""Runs of frames as video segments on their own, encoded independently of one another.

So many machines can share a clip; there are no B-frames, so the packets of consecutive runs simply follow
one another.
"""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from pipelines.media.video.clip import ClipError, ClipFormat, Timed
from pipelines.media.video.codecs import (
    Coder,
    EncodeConfig,
    as_written,
    coder_of,
    numbered,
    pixels_of,
    rate_of,
    set_up,
    step_back,
)
from pipelines.media.video.colour import Colours, unpacked_alpha

WITH_ALPHA = "matroska"
"""What carries the alpha of VP8 and VP9, which stands beside their packets."""


def write(state: Timed, pixels: NDArray[Any], encode: EncodeConfig) -> bytes:
    """A run's frames, upright, as a video segment on its own, for `join`.

    Raises ClipError where the clip cannot be written in the codec that is asked for.
    """
    pixels = state.format.turn.stored(pixels)
    height, width = pixels.shape[1:3]
    coder = coder_of(state.format, encode, height, width)
    state = replace(state, format=as_written(coder, state.format))
    format = state.format
    name = pixels_of(coder, format, height, width)
    if state.alpha:
        pixels = np.concatenate([pixels, unpacked_alpha(state.alpha, pixels)], axis=-1)
    stream_bytes = io.BytesIO()
    segment = WITH_ALPHA if name.startswith("yuva") and coder.codec in ("vp8", "vp9") else coder.segment
    with av.open(stream_bytes, "w", format=segment, container_options=_options(segment, format)) as container:
        stream: Any = container.add_stream(coder.encoder, rate=rate_of(coder, format))
        set_up(stream.codec_context, coder, encode, format, height, width)
        stream.time_base = format.time_base
        container.metadata["comment"] = told_of(state)
        if segment == WITH_ALPHA:
            stream.metadata["alpha_mode"] = "1"
        _encode(container, stream, coder, state, pixels)
    return stream_bytes.getvalue()


def told_of(state: Timed) -> str:
    """What the packets of a segment do not tell: how long its last frame lasts, and when its first is shown,
    in seconds. Muxers move what begins before 0."""
    return f"{state.length * state.format.time_base} {state.pts[0] * state.format.time_base}"


def read_told(text: str) -> tuple[Fraction, Fraction | None]:
    """The same again; segments of earlier versions do not tell when they begin."""
    length, *first = map(Fraction, text.split() or ["0"])
    return length, first[0] if first else None


def _options(segment: str, format: ClipFormat) -> dict[str, str]:
    if segment != "mov":
        return {}
    # Else a run that does not begin at 0 begins at a whole millisecond.
    clock = str(format.time_base.denominator)
    return {"movie_timescale": clock, "video_track_timescale": clock}


def _encode(container: Any, stream: Any, coder: Coder, state: Timed, pixels: NDArray[Any]) -> None:
    """Packets and frames are one to one, so each packet gets the time of its frame."""
    colours, format = Colours(state.format), stream.pix_fmt
    packets = []
    for number, frame in enumerate(colours.frame(one, format) for one in pixels):
        frame.pts = number if numbered(coder, state.format) else state.pts[number]
        frame.time_base = stream.codec_context.time_base
        state.format.colour.put_on(frame)  # from which ProRes takes it
        packets += stream.encode(frame)
        if number == 0 and coder.encoder == "libsvtav1":
            step_back()
    packets += stream.encode()
    if len(packets) != len(state.pts):
        raise ClipError(f"{coder.encoder} made {len(packets)} packets of {len(state.pts)} frames")
    for packet, stamp in zip(packets, state.pts, strict=True):
        packet.time_base = state.format.time_base
        packet.pts = packet.dts = stamp
        packet.duration = 0
        container.mux(packet)
