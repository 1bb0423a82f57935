"""BMP, PPM, PGM, TGA and JPEG 2000, which hold hardly more than pixels."""

from __future__ import annotations

from typing import Any

from PIL import Image

from spair_core.images.formats.picture import Picture
from spair_core.images.formats.picture_format import PictureFormat, boxes, resolution

CODESTREAM = b"\xff\x4f"
WRITTEN = (b"jP  ", b"ftyp", b"jp2h", b"jp2c")
"""Boxes of a JPEG 2000 file that Pillow writes; the others are kept behind them."""
CODING_STYLE = b"\xff\x52"
CREDENTIALS = b"jumb"


def _tga_kept(image: Image.Image, data: bytes) -> dict[str, Any]:
    return {name: image.info[name] for name in ("compression", "id_section") if image.info.get(name)}


def _jp2_kept(image: Image.Image, data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"no_jp2": data.startswith(CODESTREAM)}
    if "comment" in image.info:
        found["comment"] = image.info["comment"]
    if not found["no_jp2"]:
        found["boxes"] = b"".join(
            box for kind, box in boxes(data) if kind not in (*WRITTEN, CREDENTIALS) and len(box) > 8
        )
    if not _is_reversible(image, data):
        size = len(image.getbands()) * (2 if image.mode == "I;16" else 1) * image.width * image.height
        found["rate"] = max(size / len(data), 1.0)
    return found


def _is_reversible(image: Image.Image, data: bytes) -> bool:
    """Whether the wavelet is the whole-numbered one of pictures without loss."""
    place = data.find(CODING_STYLE, data.find(b"\xff\x4f\xff\x51"))
    return place < 0 or data[place + 13 : place + 14] != b"\0"


def _jp2_lost(image: Image.Image, data: bytes) -> tuple[str, ...]:
    found = []
    kinds = {} if data.startswith(CODESTREAM) else dict(boxes(data))
    header = kinds.get(b"jp2h", b"")
    if b"colr\x02" in header or b"colr\x03" in header:
        found.append("its colour profile")
    if b"res " in header:
        found.append("its resolution")
    place = header.find(b"ihdr")
    if place >= 0 and image.mode != "I;16" and header[place + 14] & 0x7F not in range(8):
        found.append(f"its {(header[place + 14] & 0x7F) + 1} bit, made 8")
    if CREDENTIALS in kinds:
        found.append("content credentials (C2PA), which vouched for the picture as it was")
    return tuple(found)


def _jp2_options(picture: Picture, quality: int | None) -> dict[str, Any]:
    options = {k: v for k, v in picture.kept.items() if k in ("no_jp2", "comment")}
    rate = picture.kept.get("rate")
    if rate is None:
        return {**options, "irreversible": False}
    return {**options, "irreversible": True, "quality_mode": "rates", "quality_layers": [rate]}


BMP = PictureFormat(
    "BMP",
    frozenset({".bmp"}),
    lambda picture, quality: dict(picture.kept),
    lambda image, data: resolution(image),
    profile=False,
    most_exif=0,
)
PPM = PictureFormat(
    "PPM",
    frozenset({".ppm", ".pgm", ".pnm"}),
    lambda picture, quality: {},
    profile=False,
    most_exif=0,
    deep_grey=True,
)
TGA = PictureFormat(
    "TGA",
    frozenset({".tga"}),
    lambda picture, quality: dict(picture.kept),
    _tga_kept,
    alpha=True,
    profile=False,
    most_exif=0,
)
JPEG2000 = PictureFormat(
    "JPEG2000",
    frozenset({".jp2", ".j2k", ".jpx", ".j2c", ".jpc"}),
    _jp2_options,
    _jp2_kept,
    _jp2_lost,
    lambda data, picture: data + picture.kept.get("boxes", b""),
    alpha=True,
    profile=False,
    most_exif=0,
    deep_grey=True,
    lossless=_is_reversible,
)
"""Those with loss are written with as many bytes as the source had, whatever the quality asked for."""
