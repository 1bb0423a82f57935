"""BMP, PPM, PGM, TGA and JPEG 2000, which hold hardly more than pixels."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
from PIL import Image

from spair_core.images.formats.picture import Picture, PictureError, Samples
from spair_core.images.formats.picture_format import WIDE, PictureFormat, boxes, deep_colour, resolution

CODESTREAM, SIZE = b"\xff\x4f", b"\xff\x51"
WRITTEN = (b"jP  ", b"ftyp", b"jp2h", b"jp2c")
"""Boxes of a JPEG 2000 file that Pillow writes; the others are kept behind them."""
CODING_STYLE = b"\xff\x52"
COMMENT = rb"#[^\n\r]*+[\n\r]"
PPM_HEADER = re.compile(rb"P([36])" + 3 * (rb"(?:\s|" + COMMENT + rb")++(\d+)") + rb"\s")
"""Plain or not, width, height and the greatest level."""
CREDENTIALS = b"jumb"


def _tga_kept(image: Image.Image, data: bytes) -> dict[str, Any]:
    return {name: image.info[name] for name in ("compression", "id_section") if image.info.get(name)}


def _wide_ppm(image: Image.Image, data: bytes) -> Samples | None:
    """Of 16 bit, the upper byte first, or in digits."""
    header = PPM_HEADER.match(data)
    if header is None or int(header[4]) != WIDE:
        return None
    count = 3 * image.width * image.height
    if header[1] == b"3":
        samples = _digits(data[header.end() :], count)
    else:
        samples = np.frombuffer(data[header.end() : header.end() + 2 * count], ">u2")
    if len(samples) < count:
        raise PictureError("damaged or cut short: pixels are missing")
    return samples.reshape(image.height, image.width, 3).astype(np.uint16)


def _digits(text: bytes, count: int) -> Samples:
    """So many levels, if they are there."""
    # All of them: of fewer than it is asked for, it makes up the rest.
    samples = np.fromstring(re.sub(COMMENT, b" ", text), np.int64, sep=" ")[:count]
    if samples.size and not 0 <= samples.min() <= samples.max() <= WIDE:
        raise PictureError("damaged or cut short: a level is out of range")
    return samples


def _deep_ppm(picture: Picture, quality: int | None) -> bytes:
    height, width = picture.pixels.shape[:2]
    return f"P6\n{width} {height}\n{WIDE}\n".encode() + picture.pixels.astype(">u2").tobytes()


def _ppm_lost(image: Image.Image, data: bytes) -> tuple[str, ...]:
    header = PPM_HEADER.match(data)
    levels = int(header[4]) if header else 255
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
        wide = image.mode == "I;16" or _is_deep_jp2(image, data)
        size = len(image.getbands()) * (2 if wide else 1) * image.width * image.height
        found["rate"] = max(size / len(data), 1.0)
    return found


def _is_reversible(image: Image.Image, data: bytes) -> bool:
    """Whether the wavelet is the whole-numbered one of pictures without loss."""
    place = data.find(CODING_STYLE, data.find(CODESTREAM + SIZE))
    return place < 0 or data[place + 13 : place + 14] != b"\0"


def _jp2_lost(image: Image.Image, data: bytes) -> tuple[str, ...]:
    found = []
    kinds = {} if data.startswith(CODESTREAM) else dict(boxes(data))
    header = kinds.get(b"jp2h", b"")
    if b"colr\x02" in header or b"colr\x03" in header:
        found.append("its colour profile")
    if b"res " in header:
        found.append("its resolution")
    bits = max(_jp2_bits(data), default=8)
    if bits > 8 and image.mode != "I;16" and not _is_deep_jp2(image, data):
        found.append(f"its {bits} bit, made 8")
    if CREDENTIALS in kinds:
        found.append("content credentials (C2PA), which vouched for the picture as it was")
    return tuple(found)


def _jp2_bits(data: bytes) -> set[int]:
    """Those of its channels, by the head of its codestream (SIZ, JPEG 2000 Part 1, A.5.1)."""
    place = data.find(CODESTREAM + SIZE)
    channels = int.from_bytes(data[place + 40 : place + 42], "big")
    return {(bits & 0x7F) + 1 for bits in data[place + 42 : place + 42 + 3 * channels : 3]}


def _is_deep_jp2(image: Image.Image, data: bytes) -> bool:
    return image.mode in ("RGB", "RGBA") and _jp2_bits(data) == {16}


def _deep_jp2_read(image: Image.Image, data: bytes) -> Samples | None:
    return deep_colour(data, "JPEG 2000") if _is_deep_jp2(image, data) else None


def _deep_jp2(picture: Picture, quality: int | None) -> bytes:
    """By OpenCV, whose rates are thousandths of the pixels' size."""
    planes = [picture.pixels[..., ::-1]] + ([] if picture.alpha is None else [picture.alpha[..., None]])
    rate = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, round(1000 / picture.kept.get("rate", 1.0))]
    written, data = cv2.imencode(".jp2", np.concatenate(planes, axis=2), rate)
    if not written:
        raise PictureError("OpenCV could not write it as JPEG 2000 of 16 bit")
    coded = data.tobytes()
    return coded[coded.find(CODESTREAM + SIZE) :] if picture.kept.get("no_jp2") else coded


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
