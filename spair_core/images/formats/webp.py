"""WebP, lossless where the file was."""

from __future__ import annotations

from spair_core.images.formats.picture import Picture
from spair_core.images.formats.picture_format import PictureFormat

CHUNKS = 100
"""Chunks that are looked through for the pixels."""


def _is_lossless(data: bytes) -> bool:
    place = 12
    for _ in range(CHUNKS):
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8L"
        place += 8 + size + size % 2
    return False


def _options(picture: Picture, quality: int) -> dict[str, object]:
    return {"lossless": picture.lossless, "quality": 80 if picture.lossless else quality}


WEBP = PictureFormat("WEBP", frozenset({".webp"}), _options, alpha=True, lossless=_is_lossless)
