"""All picture formats there are: the one place that a new one is entered."""

from __future__ import annotations

from spair_core.images.formats.heif import AVIF, HEIC
from spair_core.images.formats.jpeg import JPEG
from spair_core.images.formats.picture_format import PictureFormat
from spair_core.images.formats.plain import BMP, JPEG2000, PPM, TGA
from spair_core.images.formats.png import PNG
from spair_core.images.formats.tiff import TIFF
from spair_core.images.formats.web import GIF, WEBP

FORMATS: tuple[PictureFormat, ...] = (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIC, JPEG2000, PPM, TGA)


def suffixes() -> frozenset[str]:
    """File name endings under which pictures are looked for."""
    return frozenset().union(*(one.suffixes for one in FORMATS))


def several_suffixes() -> frozenset[str]:
    """Those of files that may hold several frames or pages."""
    return frozenset().union(*(one.suffixes for one in FORMATS if one.several is not None))


def format_of(name: str | None) -> PictureFormat:
    """The format of Pillow's name for what a file is, or of a picture. Raises KeyError."""
    for one in FORMATS:
        if name == one.name or name in one.taken_for_it:
            return one
    raise KeyError(name)
