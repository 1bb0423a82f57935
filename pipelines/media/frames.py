"""Pictures with several frames or pages: animations, which are footage, and pages, which know nothing of one
another. A page in which nothing was found stays as it was, where its format allows."""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.media.medium import Encoding, Medium, Piece, telling
from pipelines.media.video import run_length
from spair_core import images
from spair_core.footage import Reach, Window, windows
from spair_core.images import Coded, Frame, PictureError

HEAD = struct.Struct("<dhQ")
"""Of a coded frame in a part: milliseconds, quality (-1: the source's), size."""


@dataclass(frozen=True)
class Kept:
    """A frame without its pixels, and what tells whether they have changed."""

    frame: Frame
    digest: bytes


def holds(path: Path) -> bool:
    """Whether there is more than one frame or page in a file."""
    return images.holds_several(path.read_bytes())


def read(path: Path, reach: Reach | None, encoding: Encoding | None = None) -> Iterator[Piece]:
    """Runs of an animation's frames, or each page by itself. Raises MediumError."""
    data = path.read_bytes()
    with telling(PictureError):
        frames = images.frames(data, deep=True)
        yield from _runs(frames, reach) if images.is_footage(data) else _pages(frames)


def _pages(frames: Iterable[Frame]) -> Iterator[Piece]:
    for frame in frames:
        yield Piece(Window.alone(frame.picture.pixels[None]), (_kept(frame),), lost=frame.picture.lost)


def _runs(frames: Iterator[Frame], reach: Reach | None) -> Iterator[Piece]:
    kept: deque[tuple[Kept, float]] = deque()

    def shown() -> Iterator[tuple[NDArray[Any], float]]:
        for frame in frames:
            kept.append((_kept(frame), frame.seconds))
            yield frame.picture.pixels, frame.seconds

    stream = shown()
    first = next(stream)
    for window in windows(_chained(first, stream), run_length(first[0].nbytes), reach):
        own = [kept.popleft() for _ in window.own]
        state = tuple(one for one, _ in own)
        yield Piece(window, state, tuple(seconds for _, seconds in own), lost=state[0].frame.picture.lost)


def _chained(
    first: tuple[NDArray[Any], float], rest: Iterator[tuple[NDArray[Any], float]]
) -> Iterator[tuple[NDArray[Any], float]]:
    yield first
    yield from rest


def _kept(frame: Frame) -> Kept:
    bare = replace(frame.picture, pixels=frame.picture.pixels[:0])
    return Kept(replace(frame, picture=bare), _digest(frame.picture.pixels))


def _digest(pixels: NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()


def write(state: tuple[Kept, ...], pixels: NDArray[Any], encoding: Encoding) -> bytes:
    """The frames, coded one by one as their format has them."""
    return b"".join(_written(kept, own, encoding) for kept, own in zip(state, pixels, strict=True))


def _written(kept: Kept, pixels: NDArray[Any], encoding: Encoding) -> bytes:
    frame = replace(kept.frame, picture=replace(kept.frame.picture, pixels=pixels))
    unchanged = _digest(pixels) == kept.digest
    coded = images.encode_frame(frame, quality=encoding.quality, unchanged=unchanged)
    return HEAD.pack(coded.milliseconds, coded.quality or -1, len(coded.data)) + coded.data


def join(parts: Iterable[bytes], source: Path, target: Path) -> Sequence[str]:
    """A file like the source. Raises MediumError where its format does not hold so much."""
    coded = (one for part in parts for one in _coded(part))
    with telling(PictureError):
        return images.put_together(coded, source.read_bytes(), target)


def _coded(part: bytes) -> Iterator[Coded]:
    place = 0
    while place < len(part):
        milliseconds, quality, size = HEAD.unpack_from(part, place)
        place += HEAD.size + size
        yield Coded(milliseconds, part[place - size : place], None if quality < 0 else quality)


FRAMES = Medium("frames", images.SEVERAL_SUFFIXES, read, write, join, holds=holds)
