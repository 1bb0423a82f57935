"""What is known of a clip, and of a run of its frames."""

from __future__ import annotations

import struct
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass
from fractions import Fraction
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import av
import numpy as np
from av.video.format import VideoFormat
from numpy.typing import NDArray

from spair_core.footage import Window

FULL = 2
"""The number of full range."""


class ClipError(ValueError):
    """These bytes are not a clip that can be restored, or written; the message says why."""


class RemoteFile(Protocol):
    """A file that is not on this machine, and too large for it."""

    @property
    def suffix(self) -> str:
        """The ending of its name."""

    def open(self) -> BufferedReader:
        """It to read, at any place."""

    def create(self) -> AbstractContextManager[BinaryIO]:
        """It to write; of what has been written, the beginning alone can be written again."""


File = Path | RemoteFile


def to_read(file: File) -> BinaryIO:
    """A file to read, at any place."""
    return file.open("rb") if isinstance(file, Path) else file.open()


@dataclass(frozen=True)
class Colour:
    """A clip's colour tags as it has them, in the numbers of ITU-T H.273 (2 is unspecified)."""

    primaries: int
    transfer: int
    matrix: int
    range: int
    """0 unspecified, 1 limited, 2 full."""

    @classmethod
    def of(cls, tagged: Any) -> Colour:
        """That of FFmpeg's frame or codec context."""
        return cls(*(int(getattr(tagged, name)) for name in COLOUR_TAGS))

    def put_on(self, tagged: Any) -> None:
        """Tag a frame or a codec context."""
        for name, value in zip(COLOUR_TAGS, astuple(self), strict=True):
            setattr(tagged, name, value)

    def or_else(self, other: Colour) -> Colour:
        """With the other's tags where it has none."""
        mine, theirs, untold = astuple(self), astuple(other), astuple(UNTOLD)
        return Colour(*(b if a == none else a for a, b, none in zip(mine, theirs, untold, strict=True)))


COLOUR_TAGS = ("color_primaries", "color_trc", "colorspace", "color_range")
"""FFmpeg's names of a `Colour`'s fields."""
UNTOLD = Colour(2, 2, 2, 0)


@dataclass(frozen=True)
class Turn:
    """How players bring a stored frame upright: first mirrored `across` its diagonal (rows become columns),
    then left to right (`mirrored`), and upside down (`upturned`)."""

    across: bool = False
    mirrored: bool = False
    upturned: bool = False

    @classmethod
    def of(cls, matrix: bytes) -> Turn:
        """That of FFmpeg's display matrix; none where there is no matrix, or one that turns by other than
        quarters, as no camera does."""
        if len(matrix) < 36:
            return cls()
        across_right, across_down, _, down_right, down_down = struct.unpack("=9i", matrix[:36])[:5]
        if not (across_down or down_right):
            return cls(False, across_right < 0, down_down < 0)
        if not (across_right or down_down):
            return cls(True, down_right < 0, across_down < 0)
        return cls()

    def upright(self, frame: NDArray[Any]) -> NDArray[Any]:
        """A stored frame [H, W, ...] as players show it."""
        frame = frame.swapaxes(0, 1) if self.across else frame
        return np.ascontiguousarray(frame[:: -1 if self.upturned else 1, :: -1 if self.mirrored else 1])

    def stored(self, frames: NDArray[Any]) -> NDArray[Any]:
        """Frames [k, H, W, ...] that are upright as they are stored."""
        frames = frames[:, :: -1 if self.upturned else 1, :: -1 if self.mirrored else 1]
        return np.ascontiguousarray(frames.swapaxes(1, 2) if self.across else frames)


@dataclass(frozen=True)
class ClipFormat:
    """What an encoded run must share with its clip."""

    suffix: str
    """Ending of its name."""
    codec: str
    profile: str
    time_base: Fraction
    rate: Fraction
    aspect: Fraction
    pixels: str
    """FFmpeg's name of the pixel format."""
    colour: Colour
    tall: bool
    """Whether players take it for high definition where the tags do not say."""
    mastering: str
    """The mastering display, as encoders take it, or nothing."""
    light: str
    """The greatest and the mean light level, likewise."""
    turn: Turn = Turn()
    """What brings its frames upright."""

    @property
    def deep(self) -> bool:
        """Whether it has more than 8 bits."""
        return depth_of(self.pixels) > 8

    @property
    def alpha(self) -> bool:
        """Whether it has transparency."""
        return any(component.is_alpha for component in VideoFormat(self.pixels).components)

    @property
    def is_rgb(self) -> bool:
        """Whether its samples are red, green and blue."""
        return VideoFormat(self.pixels).is_rgb


def depth_of(pixels: str) -> int:
    """Bits of a sample."""
    return max(component.bits for component in VideoFormat(pixels).components)


@dataclass(frozen=True)
class Timed:
    """What encoding a run takes beside its pixels: its frames' time stamps in time bases, the `length` of the
    last of them (0 where nothing says it), their alpha (packed) where they have it, and the format."""

    pts: tuple[int, ...]
    format: ClipFormat
    length: int = 0
    alpha: bytes = b""


@dataclass(frozen=True)
class Run:
    """Consecutive frames of a clip with those around them, and what writing them takes.

    `seconds` are the times of the window's own frames; `notes` say what of the clip is damaged or missing,
    `lost` what of it is not kept, a sentence each.
    """

    window: Window
    state: Timed
    seconds: tuple[float, ...]
    notes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def sides(frame: av.VideoFrame) -> dict[str, bytes]:
    """What hangs on a frame beside its pixels, by FFmpeg's names."""
    found: Any
    try:
        found = iter(frame.side_data)
    except ValueError:  # a kind that is newer than PyAV
        return {}
    return {side.type.name: bytes(side) for side in found}
