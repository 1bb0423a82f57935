"""TIFF of one page, of 8 or 16 bit."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import tifffile
from PIL import ExifTags, Image

from spair_core.images.formats.picture import Picture
from spair_core.images.formats.picture_format import PictureFormat, resolution

TEXTS = frozenset(
    {
        ExifTags.Base.ImageDescription,
        ExifTags.Base.Make,
        ExifTags.Base.Model,
        ExifTags.Base.Software,
        ExifTags.Base.DateTime,
        ExifTags.Base.Artist,
        ExifTags.Base.HostComputer,
        ExifTags.Base.Copyright,
    }
)
"""Tags that say something in words."""
DESCRIPTIVE = TEXTS | {
    ExifTags.Base.XResolution,
    ExifTags.Base.YResolution,
    ExifTags.Base.ResolutionUnit,
    ExifTags.Base.ExifOffset,
    ExifTags.Base.GPSInfo,
}
"""Tags that tell of the picture and not of how its file is laid out."""


def _several(image: Image.Image) -> bool:
    # Counting them (n_frames) would read a hostile file's millions of directories one by one.
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _options(picture: Picture, quality: int | None) -> dict[str, Any]:
    # libtiff, which compresses, refuses some EXIF that Pillow's own writer takes.
    return {**picture.kept, "compression": "raw" if picture.exif else "tiff_deflate"}


def _deep(picture: Picture) -> bytes:
    """By tifffile, with the texts of the EXIF, profile and resolution."""
    planes = [picture.pixels] + ([] if picture.alpha is None else [picture.alpha[..., None]])
    exif = Image.Exif()
    exif.load(picture.exif or b"")
    tags = [(int(tag), "s", 0, str(text), True) for tag, text in exif.items() if tag in TEXTS]
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        np.concatenate(planes, axis=2),
        photometric="rgb",
        compression="zlib",
        extrasamples=None if picture.alpha is None else ["unassalpha"],
        resolution=picture.kept.get("dpi"),
        resolutionunit="INCH" if "dpi" in picture.kept else None,
        iccprofile=picture.icc_profile,
        extratags=tags,
        metadata=None,
        software=False,
    )
    return stream.getvalue()


TIFF = PictureFormat(
    "TIFF",
    frozenset({".tif", ".tiff"}),
    _options,
    resolution,
    alpha=True,
    modes=frozenset({"L", "CMYK"}),
    deep=_deep,
    deep_grey=True,
    several=_several,
    upright=True,
    tells=lambda tag: tag in DESCRIPTIVE,
)
