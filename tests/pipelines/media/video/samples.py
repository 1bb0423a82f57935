"""Small clips of any kind, made as cameras and editors make them, and what is in a file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipelines.media import EncodeConfig, Encoding, clips
from pipelines.media.video import container_of
from pipelines.media.video.clip import COLOUR_TAGS
from pipelines.media.video.codecs import step_back

HEIGHT, WIDTH = 48, 64


def picture(number: int = 0, *, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Smooth colours that move, uint16 [H, W, 3]."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin((rows * a + columns * b + 2 * number) / 18) for a, b in ((1, 2), (2, -1), (-1, 1))]
    return np.round((np.stack(waves, -1) * 0.25 + 0.5) * 65535).astype(np.uint16)


def filmed(
    path: Path,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    frames: int = 5,
    rate: Any = 25,
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    matrix: tuple[int, ...] = (),
    **settings: Any,
) -> Path:
    """A clip of `picture`s; settings are those of the codec's context."""
    # Of frames fewer than it might reorder, x265 gives times out of memory that nobody has written.
    x265 = {"x265-params": "log-level=none:pools=1:frame-threads=1:bframes=0"}
    quiet = x265 if codec == "libx265" else {}
    with av.open(str(path), "w", format=container_of(path.suffix).muxer) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        context = stream.codec_context
        context.time_base, context.options = 1 / Fraction(rate), {**quiet, **(options or {})}
        for name, value in settings.items():
            setattr(context, name, value)
        if pixels.startswith("yuva") and "vp" in codec:
            stream.metadata["alpha_mode"] = "1"
        if matrix:
            stream.set_display_matrix(list(matrix))
        for number in range(frames):
            frame = frame_of(number, pixels, size, context.time_base)
            for name in settings.keys() & set(COLOUR_TAGS):
                setattr(frame, name, settings[name])
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    step_back()
    return path


def frame_of(number: int, pixels: str, size: tuple[int, int], base: Fraction) -> av.VideoFrame:
    """A `picture` in a pixel format."""
    shown = picture(number, height=size[0], width=size[1])
    alpha = np.broadcast_to(np.linspace(0, 65535, size[1]).astype(np.uint16)[None, :, None], (*size, 1))
    whole = av.VideoFrame.from_ndarray(np.concatenate([shown, alpha], 2), format="rgba64le")
    frame = whole.reformat(format=pixels)
    frame.pts, frame.time_base = number, base
    return frame


def restored(source: Path, target: Path, **encode: Any) -> tuple[list[Any], list[str]]:
    """The clip written again with its own pixels: its runs, and every note."""
    runs = list(clips.read(source, None))
    encoding = Encoding(clips=EncodeConfig(**encode))
    lost = clips.join((clips.write(run.state, run.window.pixels, encoding) for run in runs), source, target)
    notes = [note for run in runs for note in (*run.notes, *run.lost)]
    return runs, [*notes, *lost]


def seen(runs: list[Any]) -> np.ndarray:
    """All frames of a clip that was read."""
    return np.concatenate([run.window.pixels for run in runs])


def off(source: Path, target: Path) -> float:
    """The mean difference of two clips' frames, of 255."""
    a, b = (seen(list(clips.read(path, None))) for path in (source, target))
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return float(np.abs(a.astype(float) - b).mean()) * 255 / np.iinfo(a.dtype).max


def video(path: Path) -> dict[str, Any]:
    """What a fresh look at a file says of its pictures."""
    with av.open(str(path)) as clip:
        stream = next(one for one in clip.streams.video if not one.disposition & 1024)
        context = stream.codec_context
        frames = list(clip.decode(stream))
        return {
            "codec": context.codec.canonical_name,
            "pixels": context.pix_fmt,
            "rate": stream.average_rate,
            "base_rate": stream.base_rate,
            "aspect": stream.sample_aspect_ratio,
            "colour": (
                context.color_primaries,
                context.color_trc,
                context.colorspace,
                context.color_range,
            ),
            "tag": context.codec_tag,
            "rotation": frames[0].rotation,
            "interlaced": frames[0].interlaced_frame,
            "times": [None if frame.pts is None else frame.pts * frame.time_base for frame in frames],
            "container": clip.format.name,
        }
