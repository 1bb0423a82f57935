"""PNG, with its text and its resolution, of 8 or 16 bit."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from spair_core.images.formats.picture import Picture
from spair_core.images.formats.picture_format import PictureFormat, resolution

MOST_TEXT = 1 << 20
"""Characters of one text that are carried over."""
COMPRESSION = 4
PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""Chunks that hold the pixels or say how; the others tell of the picture."""


def _kept(image: Image.Image) -> dict[str, Any]:
    image.load()  # text may come after the pixels
    texts = {k: v for k, v in getattr(image, "text", {}).items() if len(v) <= MOST_TEXT}
    return resolution(image) | ({"text": texts} if texts else {})


def _options(picture: Picture, quality: int | None) -> dict[str, Any]:
    options = {k: v for k, v in picture.kept.items() if k != "text"}
    info = PngImagePlugin.PngInfo()
    for key, text in picture.kept.get("text", {}).items():
        if isinstance(text, PngImagePlugin.iTXt):
            info.add_itxt(key, str(text), text.lang or "", text.tkey or "")
        else:
            info.add_text(key, text)
    return {**options, "pnginfo": info, "compress_level": COMPRESSION}


def _deep(picture: Picture) -> bytes:
    """Pixels by OpenCV; all that tells of the picture as Pillow writes it."""
    planes = [picture.pixels[..., ::-1]]
    if picture.alpha is not None:
        planes.append(picture.alpha[..., None])
    written = cv2.imencode(
        ".png", np.concatenate(planes, axis=2), [cv2.IMWRITE_PNG_COMPRESSION, COMPRESSION]
    )[1]
    beside = io.BytesIO()
    told: dict[str, Any] = {"icc_profile": picture.icc_profile, "exif": picture.exif}
    options = _options(picture, None) | {key: value for key, value in told.items() if value}
    Image.new("RGB", (1, 1)).save(beside, "PNG", **options)
    chunks = list(_chunks(written.tobytes()))
    chunks[1:1] = [chunk for chunk in _chunks(beside.getvalue()) if chunk[0] not in PIXELS]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place + 8 <= len(data):
        size = struct.unpack_from(">I", data, place)[0]
        yield data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        place += 12 + size


PNG = PictureFormat("PNG", frozenset({".png"}), _options, _kept, alpha=True, deep=_deep, deep_grey=True)
