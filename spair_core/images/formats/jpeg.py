"""JPEG: coded again as the source was, with all that stands beside its picture.

Segments that Pillow does not write and bytes behind the picture (the film of a motion photo, a gain map)
are kept as they are; where the file's index of several pictures (MPF, CIPA DC-007) tells places, they follow.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

from PIL import Image, JpegImagePlugin

from spair_core.images.formats.picture import Picture
from spair_core.images.formats.picture_format import (
    Coded,
    PictureFormat,
    Several,
    resolution,
    without_thumbnails,
)

MOST_EXIF = 65_533
"""Bytes that the segment for it takes."""
MOST_XMP = 65_504
QUALITY = 95
"""Where there is no source whose tables could be taken."""
NOT_SUBSAMPLED, HALVED = 0, 2
"""4:4:4 and 4:2:0 in Pillow's numbers; it cannot write rarer ones, which become the latter."""
MARKER = re.compile(rb"\xff+[^\x00\xff]", re.DOTALL)
FILM = re.compile(rb"(.{24})?.{4}ftyp", re.DOTALL)
"""How the film of a motion photo begins, which may have a head of its own."""
START_OF_SCAN, COMMENT, END = 0xDA, 0xFE, b"\xff\xd9"
JFIF_SEGMENT, JFIF = 0xE0, b"JFIF\0"
WRITTEN = (JFIF, b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0", b"Adobe")
"""How segments begin that Pillow writes by itself."""
THUMBNAILS = (b"JFXX\0",)
CREDENTIALS = 0xEB
"""The segment of C2PA's and other JUMBF boxes."""
MPF_SEGMENT, MPF = 0xE2, b"MPF\0"
MP_ENTRIES, MP_ENTRY = 0xB002, 16
PHOTOSHOP = b"Photoshop 3.0\0"
GAIN_MAPS = (b"hdrgm:", b"hdrgainmap", b"urn:iso:std:iso:ts:21496:-1")


def segments(data: bytes, start: int = 0) -> tuple[list[tuple[int, bytes, int]], int]:
    """What `head` gives of the JPEG that begins at `start`, and where it ends."""
    found, place = head(data, start)
    end = data.find(END, place)  # which never stands among coded pixels
    return found, end + len(END) if end >= 0 else len(data)


def head(data: bytes, start: int = 0) -> tuple[list[tuple[int, bytes, int]], int]:
    """(marker, body, place of the body) before the pixels, and where those begin."""
    found: list[tuple[int, bytes, int]] = []
    place = start + 2
    while marker := MARKER.match(data, place):
        kind, body = data[marker.end() - 1], marker.end() + 2
        place = body - 2 + max(int.from_bytes(data[body - 2 : body], "big"), 2)
        if kind == START_OF_SCAN:
            break
        found.append((kind, data[body:place], body))
    return found, place


def pictures(data: bytes) -> list[tuple[int, int]]:
    """Where each of the pictures that the file's index names begins and ends; the gain maps among them are
    none. Of a file without such an index, the one that there is."""
    first, *others = _found(data)
    return [first, *(one for one in others if not _is_gain_map(data, one[0]))]


def _found(data: bytes) -> list[tuple[int, int]]:
    found = [(0, segments(data)[1])]
    before, index = _index(data) or (0, b"")
    for at, order in _entries(index):
        start = struct.unpack_from(f"{order}I", index, at + 8)[0] + before
        if data[start : start + 2] == b"\xff\xd8" and start >= found[-1][1]:
            found.append((start, segments(data, start)[1]))
    return found


def _gain_maps(data: bytes) -> int:
    return len(_found(data)) - len(pictures(data)) if _index(data) else 0


def _is_gain_map(data: bytes, start: int) -> bool:
    return any(sign in body for _, body, _ in head(data, start)[0] for sign in GAIN_MAPS)


def _entries(body: bytes) -> Iterator[tuple[int, str]]:
    """Of an MPF segment's body, where the entries of its pictures are, and how their bytes are ordered."""
    order = "<" if body[4:6] == b"II" else ">"
    try:
        place = 4 + struct.unpack_from(f"{order}I", body, 8)[0]
        for number in range(struct.unpack_from(f"{order}H", body, place)[0]):
            tag, _, size, offset = struct.unpack_from(f"{order}HHII", body, place + 2 + 12 * number)
            if tag == MP_ENTRIES:
                last = min(4 + offset + size, len(body)) - MP_ENTRY
                yield from ((at, order) for at in range(4 + offset, last + 1, MP_ENTRY))
    except struct.error:
        return


def _put_together(
    coded: Iterator[Coded], first: Picture, image: Image.Image, source: bytes, target: IO[bytes]
) -> tuple[str, ...]:
    """Pictures in the places of the source's: what stood between and behind them is kept."""
    written, last, moved = bytearray(), 0, []
    for jpeg, (start, end) in zip(coded, pictures(source), strict=True):
        written += source[last:start]
        moved.append(Moved(start, end, len(written), len(written) + len(jpeg.data)))
        written += jpeg.data
        last = end
    target.write(_indexed(bytes(written) + source[last:], _index(source), moved))
    named = len(list(_entries((_index(source) or (0, b""))[1])))
    missing = named - len(moved) - _gain_maps(source)
    why = "are not where its index says, and kept as they were"
    return (f"not restored: {missing} of its pictures, which {why}",) if missing > 0 else ()


class Moved(NamedTuple):
    """Where a picture began and ended, and where it does now."""

    start: int
    end: int
    new_start: int
    new_end: int


Index = tuple[int, bytes]
"""From where a file's index of pictures counts, and its segment's body."""


def _index(data: bytes) -> Index | None:
    found = (
        (place + len(MPF), body)
        for kind, body, place in head(data)[0]
        if kind == MPF_SEGMENT and body.startswith(MPF)
    )
    return next(found, None)


def _indexed(data: bytes, source: Index | None, moved: Sequence[Moved]) -> bytes:
    """A file with the index of its source put right."""
    here = _index(data)
    if source is None or here is None or len(here[1]) != len(source[1]):
        return data
    (before, body), now = source, here[0]
    put = bytearray(body)
    for number, (at, order) in enumerate(_entries(body)):
        size, offset = struct.unpack_from(f"{order}II", body, at + 4)
        start, size = _now_at(before + offset if number else 0, size, moved)
        struct.pack_into(f"{order}II", put, at + 4, size, start - now if number else 0)
    return data[: now - len(MPF)] + bytes(put) + data[now - len(MPF) + len(put) :]


def _now_at(start: int, size: int, moved: Sequence[Moved]) -> tuple[int, int]:
    for one in moved:
        if one.start == start:
            return one.new_start, one.new_end - one.new_start
    grown = [one.new_end - one.end for one in moved if one.end <= start]
    return start + (grown[-1] if grown else 0), size


def _kept(image: Image.Image, data: bytes) -> dict[str, Any]:
    found = resolution(image)
    tables = getattr(image, "quantization", None)
    if tables:
        found["qtables"] = {number: list(table) for number, table in tables.items()}
        found["subsampling"] = _sampling(image)
        found["progressive"] = bool(image.info.get("progressive"))
        found["keep_rgb"] = _is_rgb(image)
    if 0 < len(image.info.get("xmp", b"")) <= MOST_XMP:
        found["xmp"] = image.info["xmp"]
    told, end = segments(data)
    found["extra"] = b"".join(
        struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body
        for kind, body in ((kind, _without_thumbnails(body)) for kind, body, _ in told)
        if _is_beside(kind, body)
    )
    found["behind"] = data[end:], end, _index(data)
    found["density"] = _density(told)
    return found


def _is_rgb(image: Image.Image) -> bool:
    """Whether red, green and blue are coded as they are: by Adobe's mark or by their names (libjpeg)."""
    if image.mode != "RGB" or "jfif" in image.info:
        return False
    named = bytes(number for number, *_ in getattr(image, "layer", ())) == b"RGB"
    return bool(image.info.get("adobe_transform", int(not named)) == 0)


def _density(told: Sequence[tuple[int, bytes, int]]) -> bytes:
    """Its resolution or the shape of its pixels as JFIF tells it (1.02): the unit, across and down."""
    jfif = next((body for kind, body, _ in told if kind == JFIF_SEGMENT and body.startswith(JFIF)), b"")
    density = jfif[len(JFIF) + 2 : len(JFIF) + 7]
    return density if len(density) == 5 and all(struct.unpack(">xHH", density)) else b""


def _is_beside(kind: int, body: bytes) -> bool:
    told = kind == COMMENT or (0xE0 <= kind <= 0xEF and kind != CREDENTIALS)
    return told and not body.startswith((*WRITTEN, *THUMBNAILS))


def _without_thumbnails(body: bytes) -> bytes:
    if not body.startswith(PHOTOSHOP):
        return body
    return PHOTOSHOP + without_thumbnails(body[len(PHOTOSHOP) :])


def _lost(image: Image.Image, data: bytes) -> tuple[str, ...]:
    told, end = segments(data)
    found = []
    if _gain_maps(data):
        found.append("not restored: its gain map, for HDR screens, which is kept as it was")
    if FILM.match(data, end):
        found.append("not restored: the film of the motion photo, which is kept as it was")
    if any(body.startswith(THUMBNAILS) or _without_thumbnails(body) != body for _, body, _ in told):
        found.append("a thumbnail, which showed the picture as it was")
    if any(kind == CREDENTIALS for kind, _, _ in told):
        found.append(
            "content credentials (C2PA) or other JUMBF boxes, which vouched for the picture as it was"
        )
    if any(kind in (0xC9, 0xCA) for kind, _, _ in told):
        found.append("arithmetic coding, in place of which there is Huffman coding")
    if _sampling(image) != (JpegImagePlugin.get_sampling(image) if len(_factors(image)) > 1 else 0):
        found.append("its rare sampling of colour, in place of which there is 4:2:0")
    return tuple(found)


def _factors(image: Image.Image) -> set[tuple[int, int]]:
    return {(across, down) for _, across, down, _ in getattr(image, "layer", ())}


def _sampling(image: Image.Image) -> int:
    if len(_factors(image)) <= 1:
        return NOT_SUBSAMPLED
    known: int = JpegImagePlugin.get_sampling(image)
    return known if known in (1, 2) else HALVED


def _options(picture: Picture, quality: int | None) -> dict[str, Any]:
    options = {"subsampling": NOT_SUBSAMPLED, **picture.kept}
    for name in ("behind", "density"):
        options.pop(name, None)
    if quality is not None or "qtables" not in options:
        options.pop("qtables", None)
        options["quality"] = QUALITY if quality is None else quality
    return options


def _completed(data: bytes, picture: Picture) -> bytes:
    density = picture.kept.get("density")
    if density and data[6:11] == JFIF:
        data = data[:13] + density + data[18:]
    behind, end, index = picture.kept.get("behind", (b"", 0, None))
    return _indexed(data + behind, index, [Moved(0, end, 0, len(data))])


JPEG = PictureFormat(
    "JPEG",
    frozenset({".jpg", ".jpeg", ".jpe", ".mpo"}),
    _options,
    _kept,
    _lost,
    _completed,
    most_exif=MOST_EXIF,
    modes=frozenset({"L", "CMYK"}),
    taken_for_it=("MPO",),
    several=Several(
        _put_together,
        footage=False,
        holds=lambda image, data: len(pictures(data)) > 1,
        parts=lambda data: (data[start:end] for start, end in pictures(data)),
    ),
    first_is_all=True,
)
