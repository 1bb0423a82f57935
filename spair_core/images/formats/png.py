"""PNG, with its text and its resolution, of 8 or 16 bit."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from spair_core.images.formats.picture import Picture, Samples
from spair_core.images.formats.picture_format import (
    Box,
    Coded,
    PictureFormat,
    Several,
    changed_box,
    cropped,
    deep_colour,
    has_more_frames,
)

MOST_TEXT = 1 << 20
"""Characters of one text that are carried over."""
COMPRESSION = 4
PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""Chunks that hold the pixels or say how; the others tell of the picture."""
FRAMES = (b"acTL", b"fcTL", b"fdAT")
WRITTEN = (*PIXELS, *FRAMES, b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"eXIf")
"""Chunks that Pillow writes, or `put_together` does."""
OURS = (*WRITTEN, b"sBIT", b"bKGD", b"hIST", b"iDOT")
"""Those beside them that nobody misses: they speak of how the source's pixels were laid out."""
COPIED = tuple(b"gAMA cHRM sRGB cICP mDCV cLLI pHYs oFFs pCAL sCAL sTER tIME".split())
"""Those that hold for any pixels, though they do not say that they may be copied."""
SAFE_TO_COPY = 0x20
"""The bit of a chunk's last letter that says it (PNG specification, 5.4)."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = 25
"""Bytes of the first chunk."""
GREY, SHORT = 0, (2, 4)
"""A colour type, and its bits of which Pillow takes no grey for clear."""
DEEP = ("RGB;16B", "RGBA;16B", "LA;16B")
"""Pillow's names of what it halves."""


def _kept(image: Image.Image, data: bytes) -> dict[str, Any]:
    image.load()  # text may come after the pixels
    texts = {k: v for k, v in getattr(image, "text", {}).items() if len(v) <= MOST_TEXT}
    beside = [(kind, body) for kind, body in chunks(data) if kind not in WRITTEN and _can_be_copied(kind)]
    behind = data[sum(12 + len(body) for _, body in chunks(data)) + len(SIGNATURE) :]
    found = {"text": texts, "chunks": beside, "behind": behind}
    return {name: value for name, value in found.items() if value}


def _can_be_copied(kind: bytes) -> bool:
    return kind in COPIED or bool(kind[3] & SAFE_TO_COPY)


def _lost(image: Image.Image, data: bytes) -> tuple[str, ...]:
    kinds = [kind for kind, _ in chunks(data)]
    names = sorted(
        {kind.decode("latin-1") for kind in kinds if kind not in OURS and not _can_be_copied(kind)}
    )
    found = [f"PNG chunks that hold for the picture as it was: {', '.join(names)}"] if names else []
    bits, colours = next((body[8:10] for kind, body in chunks(data) if kind == b"IHDR"), bytes(2))
    clear = b"tRNS" in kinds
    if has_more_frames(image) and bits == 16 and (colours != GREY or clear):
        found.append("its 16 bit, made 8, as it is an animation")
    if colours == GREY and bits in SHORT and clear:
        found.append("its transparency, which grey of so few bits is read without")
    if any(len(text) > MOST_TEXT for text in getattr(image, "text", {}).values()):
        found.append(f"a text of more than {MOST_TEXT:,} characters")
    return tuple(found)


def _options(picture: Picture, quality: int | None) -> dict[str, Any]:
    options = {"dpi": picture.kept["dpi"]} if "dpi" in picture.kept else {}  # of no file: those have a chunk
    info = PngImagePlugin.PngInfo()
    for key, text in picture.kept.get("text", {}).items():
        if isinstance(text, PngImagePlugin.iTXt):
            info.add_itxt(key, str(text), text.lang or "", text.tkey or "")
        else:
            info.add_text(key, text)
    return {**options, "pnginfo": info, "compress_level": COMPRESSION}


def _deep(picture: Picture, quality: int | None) -> bytes:
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
    whole = list(chunks(written.tobytes()))
    whole[1:1] = [one for one in chunks(beside.getvalue()) if one[0] not in PIXELS]
    return SIGNATURE + b"".join(chunk(*one) for one in whole)


def _deep_read(image: Image.Image, data: bytes) -> Samples | None:
    tiles = getattr(image, "tile", [])
    wide = bool(tiles) and tiles[0].args in DEEP
    return deep_colour(data, "PNG") if wide and not has_more_frames(image) else None


def _completed(data: bytes, picture: Picture) -> bytes:
    """With the chunks that were beside the picture, before its pixels, and what was behind it."""
    whole = list(chunks(data))
    whole[1:1] = picture.kept.get("chunks", [])
    return SIGNATURE + b"".join(chunk(*one) for one in whole) + picture.kept.get("behind", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    """As it stands in a file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, body) of each chunk of a file."""
    place = 8
    while place + 8 <= len(data):
        size = struct.unpack_from(">I", data, place)[0]
        yield data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        if data[place + 4 : place + 8] == b"IEND":
            return
        place += 12 + size


def _animated(
    coded: Iterator[Coded], first: Picture, image: Image.Image, source: bytes, target: IO[bytes]
) -> tuple[str, ...]:
    """An APNG whose frames replace what differs from the one before (APNG specification 1.0)."""
    hidden = bool(image.info.get("default_image"))  # a first picture for those that know no animations
    count, order, behind = 0, 0, b""
    stands: Samples | None = None
    for number, frame in enumerate(coded):
        data, box, pixels = _changed(frame.data, stands)
        stands = None if number == 0 and hidden else pixels
        whole = list(chunks(data))
        if number == 0:
            behind = frame.data[len(SIGNATURE) + sum(12 + len(body) for _, body in whole) :]
            target.write(SIGNATURE + chunk(*whole[0]) + chunk(b"acTL", bytes(8)))
            target.write(b"".join(chunk(*one) for one in whole[1:] if one[0] not in (b"IDAT", b"IEND")))
        if number or not hidden:
            target.write(chunk(b"fcTL", struct.pack(">I", order) + _control(box, frame.milliseconds)))
            order, count = order + 1, count + 1
        for body in (body for kind, body in whole if kind == b"IDAT"):
            target.write(chunk(b"fdAT", struct.pack(">I", order) + body) if number else chunk(b"IDAT", body))
            order += bool(number)
    target.write(chunk(b"IEND", b"") + behind)
    target.seek(len(SIGNATURE) + HEADER)
    target.write(chunk(b"acTL", struct.pack(">II", count, image.info.get("loop", 0))))
    return ()


def _changed(data: bytes, before: Samples | None) -> tuple[bytes, Box, Samples]:
    """A coded frame's part that is not as before, where that is, and all its pixels."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as frame:
        pixels = np.asarray(frame)
        box = changed_box(before, pixels)
        part = data if before is None else cropped(frame, box, compress_level=COMPRESSION)
        return part, box, pixels


def _control(box: Box, milliseconds: float) -> bytes:
    left, top, right, bottom = box
    share = 1000 if milliseconds < 65_536 else 100
    shown = min(round(milliseconds * share / 1000), 65_535)
    return struct.pack(">IIIIHHBB", right - left, bottom - top, left, top, shown, share, 0, 0)


PNG = PictureFormat(
    "PNG",
    frozenset({".png", ".apng"}),
    _options,
    _kept,
    _lost,
    _completed,
    alpha=True,
    deep=_deep,
    deep_read=_deep_read,
    deep_grey=True,
    several=Several(_animated, footage=True),
)
