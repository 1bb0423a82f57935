"""BMP, PPM, PGM, TGA and JPEG 2000, which hold hardly more than pixels."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
from PIL import Image

from spair_core.images.formats.picture import Picture, PictureError, Samples
from spair_core.images.formats.picture_format import PictureFormat, boxes, deep_colour, resolution

CODESTREAM = b"\xff\x4f"
WRITTEN = (b"jP  ", b"ftyp", b"jp2h", b"jp2c")
"""Boxes of a JPEG 2000 file that Pillow writes; the others are kept behind them."""
CODING_STYLE = b"\xff\x52"
P6 = re.compile(rb"P6(?:\s+|\s*#[^\n]*\n)*(\d+)\s+(\d+)\s+(\d+)\s")
WIDE = 65_535
CREDENTIALS = b"jumb"


def _tga_kept(image: Image.Image, data: bytes) -> dict[str, Any]:
    return {name: image.info[name] for name in ("compression", "id_section") if image.info.get(name)}


def _wide_ppm(image: Image.Image, data: bytes) -> Samples | None:
    """Of 16 bit, the upper byte first."""
    header = P6.match(data)
    if header is None or int(header[3]) != WIDE:
        return None
    count = 3 * image.width * image.height
    if len(data) - header.end() < 2 * count:
        raise PictureError("damaged or cut short: pixels are missing")
    samples = np.frombuffer(data, ">u2", count, header.end())
    return samples.reshape(image.height, image.width, 3).astype(np.uint16)


def _deep_ppm(picture: Picture, quality: int | None) -> bytes:
    height, width = picture.pixels.shape[:2]
    return f"P6\n{width} {height}\n{WIDE}\n".encode() + picture.pixels.astype(">u2").tobytes()


def _ppm_lost(image: Image.Image, data: bytes) -> tuple[str, ...]:
    header = P6.match(data)
    levels = int(header[3]) if header else 255
    return () if levels in (255, WIDE) else (f"its {levels + 1} levels, made 256",)


def _jp2_kept(image: Image.Image, data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"no_jp2": data.startswith(CODESTREAM)}
    if "comment" in image.info:
        found["comment"] = image.info["comment"]
    if not found["no_jp2"]:
        found["boxes"] = b"".join(
            box for kind, box in boxes(data) if kind not in (*WRITTEN, CREDENTIALS) and len(box) > 8
        )
    if not _is_reversible(image, data):
        wide = not found["no_jp2"] and _jp2_bits(dict(boxes(data)).get(b"jp2h", b"")) > 8
        size = len(image.getbands()) * (2 if wide else 1) * image.width * image.height
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
    bits = _jp2_bits(header)
    if bits > 8 and image.mode != "I;16" and _deep_jp2_read(image, data) is None:
        found.append(f"its {bits} bit, made 8")
    if CREDENTIALS in kinds:
        found.append("content credentials (C2PA), which vouched for the picture as it was")
    return tuple(found)


def _jp2_bits(header: bytes) -> int:
    """A channel, by the file's header box."""
    place = header.find(b"ihdr")
    return (header[place + 14] & 0x7F) + 1 if 0 <= place < len(header) - 14 else 8


def _deep_jp2_read(image: Image.Image, data: bytes) -> Samples | None:
    if data.startswith(CODESTREAM) or image.mode not in ("RGB", "RGBA"):
        return None
    return deep_colour(data, "JPEG 2000") if _jp2_bits(dict(boxes(data)).get(b"jp2h", b"")) == 16 else None


def _deep_jp2(picture: Picture, quality: int | None) -> bytes:
    """By OpenCV, whose rates are thousandths of the pixels' size."""
    planes = [picture.pixels[..., ::-1]] + ([] if picture.alpha is None else [picture.alpha[..., None]])
    rate = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, round(1000 / picture.kept.get("rate", 1.0))]
    written, data = cv2.imencode(".jp2", np.concatenate(planes, axis=2), rate)
    if not written:
        raise PictureError("OpenCV could not write it as JPEG 2000 of 16 bit")
    return data.tobytes()


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
    lost=_ppm_lost,
    profile=False,
    most_exif=0,
    deep=_deep_ppm,
    deep_read=_wide_ppm,
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
    deep=_deep_jp2,
    deep_read=_deep_jp2_read,
    deep_grey=True,
    lossless=_is_reversible,
)
"""Those with loss are written with as many bytes as the source had, whatever the quality asked for."""
