"""WebP, lossless where the file was, and AVIF. Lossy ones do not say what their quality was."""

from __future__ import annotations

from typing import Any

from PIL import Image

from spair_core.images.formats.picture import Picture
from spair_core.images.formats.picture_format import PictureFormat

CHUNKS = 100
"""Chunks that are looked through for the pixels."""
WEBP_QUALITY, AVIF_QUALITY = 90, 85


def _is_lossless(data: bytes) -> bool:
    place = 12
    for _ in range(CHUNKS):
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8L"
        place += 8 + size + size % 2
    return False


def _kept(image: Image.Image) -> dict[str, Any]:
    return {"xmp": image.info["xmp"]} if image.info.get("xmp") else {}


def _options(picture: Picture, quality: int | None) -> dict[str, Any]:
    coding = {"lossless": True, "quality": 80} if picture.lossless else {"quality": quality or WEBP_QUALITY}
    return {**picture.kept, **coding}


WEBP = PictureFormat(
    "WEBP", frozenset({".webp"}), _options, _kept, alpha=True, modes=frozenset(), lossless=_is_lossless
)


def _avif_options(picture: Picture, quality: int | None) -> dict[str, Any]:
    return {**picture.kept, "quality": quality or AVIF_QUALITY, "speed": 6, "max_threads": 1}


AVIF = PictureFormat(
    "AVIF", frozenset({".avif", ".avifs"}), _avif_options, _kept, alpha=True, modes=frozenset(), upright=True,
    lossless=lambda data: False,
)  # fmt: skip
