"""What a picture format is to the codec: its names, what its files keep, and how they are saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from spair_core.images.formats.picture import Picture


def has_more_frames(image: Image.Image) -> bool:
    """Whether an opened file holds frames beside the first, as Pillow knows by its header."""
    return bool(getattr(image, "is_animated", False))


@dataclass(frozen=True)
class PictureFormat:
    """One format. A module of this room has one, `catalogue.FORMATS` all."""

    name: str
    """Pillow's."""
    suffixes: frozenset[str]
    """File name endings, in lower case with their dots, under which its pictures are looked for."""
    options: Callable[[Picture, int], dict[str, object]]
    """(picture, quality from 1 to 100): what Pillow's `save` is told beside alpha, profile and EXIF."""
    alpha: bool = False
    """Whether its files hold transparency."""
    profile: bool = True
    """Whether they hold an ICC profile."""
    most_exif: int | None = None
    """Longest EXIF in bytes that they take; None: any."""
    taken_for_it: tuple[str, ...] = ()
    """Pillow's names of other formats whose first picture is one of this format."""
    several: Callable[[Image.Image], bool] = has_more_frames
    """Whether an opened file holds more than one picture, and so is none for this codec."""
    lossless: Callable[[bytes], bool] = lambda data: True
    """Whether a file's pixels were coded without loss."""
    upright: bool = False
    """Whether Pillow turns its pictures upright by itself, by their orientation."""
    tells: Callable[[int], bool] = lambda tag: True
    """Whether an EXIF tag tells of the picture, and not of how its file is laid out."""
