"""GIF, whose palette is kept, and WebP, whose lossy ones get the quality that gives their source's size."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spair_core.images.formats.picture import Picture
from spair_core.images.formats.picture_format import (
    Box,
    Coded,
    PictureFormat,
    Several,
    bits_a_pixel,
    changed_box,
    coded_size,
    cropped,
    quality_of,
)

WEBP_QUALITY = 90
"""Of lossy ones where there is no source."""
LOSSLESS = {"lossless": True, "quality": 80, "exact": True}
WRITTEN = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP ")
BESIDE = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
ANIMATED, ALPHA, NOT_BLENDED = 0x02, 0x10, 0x02
"""Flags of a file, and of a frame that replaces what was there."""
COLOURS = 256
EXTENSIONS = {b"\x0bXMP DataXMP": "XMP", b"\x0bICCRGBG1012": "colour profile"}
STAYS, CLEARED = 0x04, 0x08
"""What becomes of a frame when the next is shown."""
EXTENSION, CONTROL = 0x21, 0xF9
ASPECT = 12
"""Where the shape of a GIF's pixels stands: this byte and 15 are 64ths; 0 says nothing of it."""
OPAQUE_ALPHA = 255
OPAQUE = 128
"""Alpha from which a GIF, which knows no more of it, shows a pixel."""


def riff_chunks(data: bytes, place: int = 12) -> Iterator[tuple[bytes, bytes]]:
    """(type, body) of a WebP's chunks."""
    while place + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, place)
        yield kind, data[place + 8 : place + 8 + size]
        place += 8 + size + size % 2


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    """As it stands in a file."""
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _is_lossless(image: Image.Image, data: bytes) -> bool:
    """By the first picture of it that there is."""
    for kind, body in riff_chunks(data[: 1 << 20]):
        if kind == b"ANMF":
            kind = next((inner for inner, _ in riff_chunks(body, 16) if inner != b"ALPH"), b"")
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8L"
    return False


def _webp_kept(image: Image.Image, data: bytes) -> dict[str, Any]:
    beside = {"xmp": image.info["xmp"]} if image.info.get("xmp") else {}
    frames = _webp_frames(data)
    # An animation's first frame is all of the canvas; the others may only be what changed.
    return {**beside, "bits": bits_a_pixel(image, frames[0][1] if frames else data)}


def _webp_lost(image: Image.Image, data: bytes) -> tuple[str, ...]:
    names = sorted({kind.decode("latin-1") for kind, _ in riff_chunks(data) if kind not in WRITTEN})
    return (f"WebP chunks of unknown meaning: {', '.join(names)}",) if names else ()


def _webp_options(picture: Picture, quality: int | None) -> dict[str, Any]:
    options = {name: value for name, value in picture.kept.items() if name == "xmp"}
    if picture.lossless:
        return {**options, **LOSSLESS}
    if quality is None and "bits" in picture.kept:
        quality = quality_of(picture.pixels, picture.kept["bits"], coded_size("WEBP"))
    return {**options, "quality": quality or WEBP_QUALITY}


def _webp_frames(data: bytes) -> list[tuple[bytes, bytes]]:
    """(head, chunks) of each of an animation's frames."""
    return [(body[:16], body[16:]) for kind, body in riff_chunks(data) if kind == b"ANMF"]


def _webp_coded(data: bytes, number: int) -> bytes | None:
    head, inner = _webp_frames(data)[number]
    canvas = data[24:30]
    if head[:6] != bytes(6) or head[6:12] != canvas or not head[15] & NOT_BLENDED:
        return None
    if inner.startswith(b"ALPH"):  # which is read in files that say so alone
        inner = riff_chunk(b"VP8X", struct.pack("<I", ALPHA) + canvas) + inner
    return b"RIFF" + struct.pack("<I", 4 + len(inner)) + b"WEBP" + inner


def _webp_animated(
    coded: Iterator[Coded], first: Picture, image: Image.Image, source: bytes, target: IO[bytes]
) -> tuple[str, ...]:
    """Frames that are all of the canvas, lossless ones what differs from the frame before (WebP container
    specification)."""
    exif = (first.exif or b"").removeprefix(b"Exif\0\0")
    told = {b"ICCP": first.icc_profile, b"EXIF": exif, b"XMP ": first.kept.get("xmp")}
    beside = {kind: body for kind, body in told.items() if body}
    canvas = b"".join(struct.pack("<I", side - 1)[:3] for side in first.pixels.shape[1::-1])
    flags = ANIMATED | (0 if first.alpha is None else ALPHA) | sum(BESIDE[kind] for kind in beside)
    target.write(b"RIFF" + bytes(4) + b"WEBP" + riff_chunk(b"VP8X", struct.pack("<I", flags) + canvas))
    if b"ICCP" in beside:
        target.write(riff_chunk(b"ICCP", beside[b"ICCP"]))
    target.write(riff_chunk(b"ANIM", dict(riff_chunks(source))[b"ANIM"]))
    stands: NDArray[np.uint8] | None = None
    for frame in coded:
        data, box, laid, stands = _webp_changed(frame.data, stands, alpha=first.alpha is not None)
        inner = [riff_chunk(*one) for one in riff_chunks(data) if one[0] in (b"ALPH", b"VP8 ", b"VP8L")]
        place = (box[0] // 2, box[1] // 2, box[2] - box[0] - 1, box[3] - box[1] - 1)
        shown = min(round(frame.milliseconds), (1 << 24) - 1)
        head = b"".join(struct.pack("<I", value)[:3] for value in (*place, shown))
        head += bytes([0 if laid else NOT_BLENDED])
        target.write(riff_chunk(b"ANMF", head + b"".join(inner)))
    for kind in (b"EXIF", b"XMP "):
        target.write(riff_chunk(kind, beside[kind]) if kind in beside else b"")
    size = target.tell() - 8
    target.seek(4)
    target.write(struct.pack("<I", size))
    return ()


def _webp_changed(
    data: bytes, before: NDArray[np.uint8] | None, *, alpha: bool
) -> tuple[bytes, Box, bool, NDArray[np.uint8]]:
    """Of a coded frame what is not as before, where that can be cut out without loss; whether it is laid over
    what was there, and all its pixels."""
    with Image.open(io.BytesIO(data), formats=["WEBP"]) as frame:
        pixels = np.asarray(frame.convert("RGBA"))
        if before is None or not _is_lossless(frame, data):
            return data, (0, 0, *frame.size), False, pixels
        left, top, right, bottom = changed_box(before, pixels)
        left, top = left - left % 2, top - top % 2  # places are even numbers
        part = pixels[top:bottom, left:right]
        same = (part == before[top:bottom, left:right]).all(axis=2)
        laid = alpha and bool((part[~same, 3] == OPAQUE_ALPHA).all())
        if laid:
            part = np.where(same[..., None], np.uint8(0), part)
        stream = io.BytesIO()
        Image.fromarray(part).convert("RGBA" if alpha else "RGB").save(stream, "WEBP", **LOSSLESS)
        return stream.getvalue(), (left, top, right, bottom), laid, pixels


WEBP = PictureFormat(
    "WEBP",
    frozenset({".webp"}),
    _webp_options,
    _webp_kept,
    _webp_lost,
    alpha=True,
    modes=frozenset(),
    lossless=_is_lossless,
    several=Several(_webp_animated, footage=True, coded=_webp_coded),
)


def _gif_kept(image: Image.Image, data: bytes) -> dict[str, Any]:
    found = {"comment": image.info["comment"]} if image.info.get("comment") else {}
    return {**found, **_gif_own(image), "aspect": data[ASPECT : ASPECT + 1]}


def _gif_own(image: Image.Image) -> dict[str, Any]:
    return {"colours": _colours(np.asarray(image.convert("RGB")))}


def _gif_lost(image: Image.Image, data: bytes) -> tuple[str, ...]:
    found = [f"all colours: what was restored is shown in the {COLOURS} at most that a GIF holds"]
    found += [f"its {name}" for sign, name in EXTENSIONS.items() if sign in data]
    return tuple(found)


def _colours(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Those that occur, [n, 3], the most frequent ones where they are more than a palette holds."""
    found, counts = np.unique(_numbers(pixels), return_counts=True)
    return _of_numbers(found[np.argsort(-counts, kind="stable")[:COLOURS]])


def _gif_options(picture: Picture, quality: int | None) -> dict[str, Any]:
    return {**{k: v for k, v in picture.kept.items() if k == "comment"}, "interlace": 0, "optimize": False}


def _gif_completed(data: bytes, picture: Picture) -> bytes:
    return data[:ASPECT] + picture.kept.get("aspect", b"\0") + data[ASPECT + 1 :]


def _palette_of(image: Image.Image, picture: Picture) -> Image.Image:
    """In few colours: those that the file had stay as they are; what shows others gets what is left of the
    palette, and is shown in its nearest colours, mixed."""
    pixels = np.asarray(image.convert("RGB"))
    shown = np.ones(pixels.shape[:2], bool) if picture.alpha is None else picture.alpha >= OPAQUE
    most = COLOURS if shown.all() else COLOURS - 1
    palette = _palette(pixels[shown], picture.kept.get("colours", np.zeros((0, 3), np.uint8)), most)
    mixed = _mixed(pixels, palette)
    if shown.all():
        return mixed
    indices = np.where(shown, np.asarray(mixed), len(palette)).astype(np.uint8)
    clear = Image.fromarray(indices, "P")
    clear.putpalette([*palette.ravel().tolist(), 0, 0, 0])
    clear.info["transparency"] = len(palette)
    return clear


def _palette(pixels: NDArray[np.uint8], had: NDArray[np.uint8], most: int) -> NDArray[np.uint8]:
    """At most so many colours [n, 3] for pixels [k, 3]: all of them, or those that the file had and the best
    for the rest."""
    if not len(pixels):
        return np.zeros((1, 3), np.uint8)
    colours = _of_numbers(np.unique(_numbers(pixels)))
    if len(colours) <= most:
        return colours
    kept = had[_isin(had, colours)][:most]
    rest = pixels[~_isin(pixels, kept)]
    left = most - len(kept)
    if not left or not len(rest):
        return kept
    best = Image.fromarray(rest[None]).quantize(left, Image.Quantize.MEDIANCUT, kmeans=1)
    found = np.asarray((best.getpalette() or [])[: 3 * left], np.uint8).reshape(-1, 3)
    return np.concatenate([kept, found])


def _isin(colours: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.isin(_numbers(colours), _numbers(others))


def _numbers(colours: NDArray[np.uint8]) -> NDArray[np.int64]:
    """A number a colour."""
    return np.asarray(colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1]))


def _of_numbers(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], axis=-1).astype(np.uint8)


def _mixed(pixels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Image.Image:
    """By error diffusion; pixels of a colour of the palette are of that colour."""
    template = Image.new("P", (1, 1))
    template.putpalette(palette.ravel().tolist())
    mixed = Image.fromarray(pixels).quantize(palette=template, dither=Image.Dither.FLOYDSTEINBERG)
    order = np.argsort(_numbers(palette), kind="stable")
    known = _numbers(palette)[order]
    wanted = _numbers(pixels.reshape(-1, 3))
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    exact = known[place] == wanted
    indices = np.where(exact, order[place], np.asarray(mixed).ravel()).reshape(pixels.shape[:2])
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette(palette.ravel().tolist())
    return image


def _gif_animated(
    coded: Iterator[Coded], first: Picture, image: Image.Image, source: bytes, target: IO[bytes]
) -> tuple[str, ...]:
    """Frames that replace what differs from the one before, each with its palette; where one can be seen
    through, it is all of the canvas, which is cleared before it (GIF89a)."""
    target.write(b"GIF89a" + struct.pack("<HH", *image.size))
    target.write(bytes(2) + source[ASPECT : ASPECT + 1] + _gif_beside(image))
    stands: NDArray[np.uint8] | None = None
    for frame, follower in _with_next(coded):
        clears = any(one is not None and _is_clear(one.data) for one in (frame, follower))
        data, box, pixels = _gif_changed(frame.data, None if clears else stands)
        stands = None if clears else pixels
        table, clear, body = _gif_parts(data)
        flags = (CLEARED if clears else STAYS) | (clear is not None)
        shown = min(round(frame.milliseconds / 10), 65_535)
        target.write(b"!\xf9\x04" + struct.pack("<BHBB", flags, shown, clear or 0, 0))
        place = struct.pack("<4H", box[0], box[1], box[2] - box[0], box[3] - box[1])
        bits = (len(table) // 3).bit_length() - 2
        target.write(b"," + place + bytes([0x80 | bits]) + table + body)
    target.write(b";")
    return ()


def _with_next(coded: Iterator[Coded]) -> Iterator[tuple[Coded, Coded | None]]:
    this = next(coded, None)
    while this is not None:
        follower = next(coded, None)
        yield this, follower
        this = follower


def _is_clear(data: bytes) -> bool:
    return _gif_parts(data)[1] is not None


def _gif_changed(data: bytes, before: NDArray[np.uint8] | None) -> tuple[bytes, Box, NDArray[np.uint8]]:
    """A coded frame's part that is not as before, where that is, and all its pixels."""
    with Image.open(io.BytesIO(data), formats=["GIF"]) as frame:
        pixels = np.asarray(frame.convert("RGB"))
        box = changed_box(before, pixels)
        part = data if before is None else cropped(frame, box, interlace=0, optimize=True)
        return part, box, pixels


def _gif_beside(image: Image.Image) -> bytes:
    written = b""
    if "loop" in image.info:
        written += b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", image.info["loop"]) + b"\0"
    comment = image.info.get("comment", b"")
    if comment:
        blocks = [comment[place : place + 255] for place in range(0, len(comment), 255)]
        written += b"!\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    return written


def _gif_parts(data: bytes) -> tuple[bytes, int | None, bytes]:
    """The palette, the number of the clear colour, and the coded pixels of a file of one frame as Pillow
    writes it."""
    place = 13 + (6 << (data[10] & 7))
    table, clear = data[13:place], None
    while data[place] == EXTENSION:
        if data[place + 1] == CONTROL and data[place + 3] & 1:
            clear = data[place + 6]
        place += 2
        while data[place]:
            place += data[place] + 1
        place += 1
    return table, clear, data[place + 10 : -1]


GIF = PictureFormat(
    "GIF",
    frozenset({".gif"}),
    _gif_options,
    _gif_kept,
    _gif_lost,
    _gif_completed,
    converted=_palette_of,
    alpha=True,
    profile=False,
    most_exif=0,
    modes=frozenset(),
    several=Several(_gif_animated, footage=True, own=_gif_own),
)
