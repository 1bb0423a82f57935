"""Clips: decoded in runs of frames, encoded run by run, joined without encoding again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from pipelines.media import video
from pipelines.media.medium import Encoding, Medium, Piece, telling
from pipelines.media.video import CONTAINERS, ClipError, File
from spair_core.footage import Reach


def read(path: File, reach: Reach | None, encoding: Encoding | None = None) -> Iterator[Piece]:
    """Runs of a clip's frames. Raises MediumError."""
    with telling(ClipError):
        for run in video.read(path, reach, encoding.clips if encoding else None):
            yield Piece(run.window, run.state, run.seconds, run.notes, run.lost)


def write(state: Any, pixels: NDArray[Any], encoding: Encoding) -> bytes:
    """A run as a video segment on its own. Raises MediumError."""
    with telling(ClipError):
        return video.write(state, pixels, encoding.clips)


def join(segments: Iterable[bytes], source: File, target: File) -> Sequence[str]:
    """The clip of these segments, with all else of its source. Raises MediumError."""
    with telling(ClipError):
        return video.join(segments, source, target)


CLIP = Medium(
    "clip",
    frozenset().union(*(one.suffixes for one in CONTAINERS)),
    read,
    write,
    join,
    remote=frozenset().union(*(one.suffixes for one in CONTAINERS if not one.turns_back)),
)
