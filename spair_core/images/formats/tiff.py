"""TIFF of one page."""

from __future__ import annotations

from PIL import ExifTags, Image

from spair_core.images.formats.picture import Picture
from spair_core.images.formats.picture_format import PictureFormat

DESCRIPTIVE = frozenset(
    {
        ExifTags.Base.ImageDescription,
        ExifTags.Base.Make,
        ExifTags.Base.Model,
        ExifTags.Base.XResolution,
        ExifTags.Base.YResolution,
        ExifTags.Base.ResolutionUnit,
        ExifTags.Base.Software,
        ExifTags.Base.DateTime,
        ExifTags.Base.Artist,
        ExifTags.Base.HostComputer,
        ExifTags.Base.Copyright,
        ExifTags.Base.ExifOffset,
        ExifTags.Base.GPSInfo,
    }
)
"""Tags that tell of the picture and not of how its file is laid out."""


def _several(image: Image.Image) -> bool:
    # Counting them (n_frames) would read a hostile file's millions of directories one by one.
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _options(picture: Picture, quality: int) -> dict[str, object]:
    # libtiff, which compresses, refuses some EXIF that Pillow's own writer takes.
    return {"compression": "raw" if picture.exif else "tiff_deflate"}


TIFF = PictureFormat(
    "TIFF",
    frozenset({".tif", ".tiff"}),
    _options,
    alpha=True,
    several=_several,
    upright=True,
    tells=lambda tag: tag in DESCRIPTIVE,
)
