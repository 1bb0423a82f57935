"""Pictures: one piece each, written in the format that they came in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipelines.media.medium import Encoding, Medium, Piece, telling
from spair_core import images
from spair_core.footage import Reach, Window
from spair_core.images import Picture, PictureError


def read(path: Path, reach: Reach | None, encoding: Encoding | None = None) -> Iterator[Piece]:
    """The picture, which knows nothing of others. Raises MediumError."""
    with telling(PictureError):
        picture = images.decode(path.read_bytes(), deep=True)
    state = replace(picture, pixels=picture.pixels[:0])
    yield Piece(Window.alone(picture.pixels[None]), state, lost=picture.lost)


def write(state: Picture, pixels: NDArray[Any], encoding: Encoding) -> bytes:
    """The file, coded as the source was, with the profile, the alpha and the like that it had."""
    return images.encode(replace(state, pixels=pixels[0]), quality=encoding.quality)


PICTURE = Medium("picture", images.SUFFIXES, read, write)
