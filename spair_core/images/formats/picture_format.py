"""What a picture format is to the codec: its names, what its files keep, and how they are saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from spair_core.images.formats.picture import Picture

Kept = Mapping[str, Any]


def has_more_frames(image: Image.Image) -> bool:
    """Whether an opened file holds frames beside the first, as Pillow knows by its header."""
    return bool(getattr(image, "is_animated", False))


def resolution(image: Image.Image) -> dict[str, Any]:
    """Pixels per inch, where the file says so."""
    dpi = image.info.get("dpi")
    return {"dpi": tuple(float(side) for side in dpi)} if dpi and all(dpi) else {}


@dataclass(frozen=True)
class PictureFormat:
    """One format. A module of this room has one, `catalogue.FORMATS` all."""

    name: str
    """Pillow's."""
    suffixes: frozenset[str]
    """File name endings, in lower case with their dots, under which its pictures are looked for."""
    options: Callable[[Picture, int | None], dict[str, Any]]
    """(picture, quality from 1 to 100, or None for the source's own): what Pillow's `save` is told beside
    alpha, profile and EXIF."""
    kept: Callable[[Image.Image], Kept] = lambda image: {}
    """What an opened file has that a copy needs to be like it: becomes `Picture.kept`."""
    alpha: bool = False
    """Whether its files hold transparency."""
    profile: bool = True
    """Whether they hold an ICC profile."""
    most_exif: int | None = None
    """Longest EXIF in bytes that they take; None: any."""
    modes: frozenset[str] = frozenset({"L"})
    """What else than RGB they hold: L (grey), CMYK (inks)."""
    deep: Callable[[Picture], bytes] | None = None
    """Files of colour with 16 bit a channel, which Pillow cannot write; None where there are none."""
    deep_grey: bool = False
    """Whether they hold grey of 16 bit."""
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
