"""JPEG: coded again as the source was. A phone's file with several pictures (MPO) counts as its first one."""

from __future__ import annotations

from typing import Any

from PIL import Image, JpegImagePlugin

from spair_core.images.formats.picture import Picture
from spair_core.images.formats.picture_format import PictureFormat, resolution

MOST_EXIF = 65_533
"""Bytes that the segment for it takes."""
MOST_XMP = 65_504
QUALITY = 95
"""Where there is no source whose tables could be taken."""
NOT_SUBSAMPLED, HALVED = 0, 2
"""4:4:4 and 4:2:0 in Pillow's numbers; it cannot write rarer ones, which become the latter."""


def _kept(image: Image.Image) -> dict[str, Any]:
    found = resolution(image)
    tables = getattr(image, "quantization", None)
    if tables:
        found["qtables"] = {number: list(table) for number, table in tables.items()}
        found["subsampling"] = _sampling(image)
        found["progressive"] = bool(image.info.get("progressive"))
    for name, most in (("comment", MOST_EXIF), ("xmp", MOST_XMP)):
        if 0 < len(image.info.get(name, b"")) <= most:
            found[name] = image.info[name]
    return found


def _sampling(image: Image.Image) -> int:
    factors = {(across, down) for _, across, down, _ in getattr(image, "layer", ())}
    if len(factors) <= 1:
        return NOT_SUBSAMPLED
    known: int = JpegImagePlugin.get_sampling(image)
    return known if known in (1, 2) else HALVED


def _options(picture: Picture, quality: int | None) -> dict[str, Any]:
    options = {"subsampling": NOT_SUBSAMPLED, **picture.kept}
    if quality is not None or "qtables" not in options:
        options.pop("qtables", None)
        options["quality"] = QUALITY if quality is None else quality
    return options


JPEG = PictureFormat(
    "JPEG",
    frozenset({".jpg", ".jpeg", ".jpe"}),
    _options,
    _kept,
    most_exif=MOST_EXIF,
    modes=frozenset({"L", "CMYK"}),
    taken_for_it=("MPO",),
    several=lambda image: False,
)
