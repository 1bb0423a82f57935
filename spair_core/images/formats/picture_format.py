"""What a picture format is to the codec: its names, what its files keep, and how they are saved."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from spair_core.images.formats.picture import Picture, PictureError, Samples

Kept = Mapping[str, Any]

BLOCK, BLOCKS = 64, 4
"""Sizes are told from a mosaic of so many blocks a side, with sides of so many pixels."""
SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes of it."""
WIDE = 65_535
"""Its greatest level."""
RESOURCE = b"8BIM"
RESOURCE_THUMBNAILS = (0x0409, 0x040C)
TRIES = 6
WORST, BEST = 20, 98
"""Qualities between which that of the source is looked for."""


def has_more_frames(image: Image.Image) -> bool:
    """Whether an opened file holds frames beside the first, as Pillow knows by its header."""
    return bool(getattr(image, "is_animated", False))


def resolution(image: Image.Image) -> dict[str, Any]:
    """Pixels per inch, where the file says so."""
    dpi = image.info.get("dpi")
    return {"dpi": tuple(float(side) for side in dpi)} if dpi and all(dpi) else {}


def without_thumbnails(resources: bytes) -> bytes:
    """Photoshop's resources without those that would show the picture as it was."""
    left, place = bytearray(), 0
    while resources[place : place + 4] == RESOURCE and place + 12 <= len(resources):
        kind = int.from_bytes(resources[place + 4 : place + 6], "big")
        name = resources[place + 6] + 1
        at = place + 6 + name + name % 2
        size = int.from_bytes(resources[at : at + 4], "big")
        after = at + 4 + size + size % 2
        left += b"" if kind in RESOURCE_THUMBNAILS else resources[place:after]
        place = after
    return bytes(left + resources[place:])


def bits_a_pixel(image: Image.Image, data: bytes) -> float:
    """What a file spends on a pixel, without what it tells beside them."""
    told = sum(len(image.info.get(name) or b"") for name in ("exif", "icc_profile", "xmp"))
    return 8 * max(len(data) - told, 1) / (image.width * image.height)


def quality_of(pixels: Samples, bits: float, size: Callable[[Samples, int], int]) -> int:
    """The best quality at which a picture [H, W, 3] takes at most so many bits a pixel.

    `size` gives the bytes of pixels coded at a quality. Of large pictures only a mosaic of pieces is coded,
    so the file comes out near its source's size and not at it.
    """
    sample = _mosaic(pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8))
    budget = bits / 8 * sample.shape[0] * sample.shape[1]
    low, high = WORST, BEST
    for _ in range(TRIES):
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(sample, middle) <= budget else (low, middle - 1)
    return low


def _mosaic(pixels: Samples) -> Samples:
    side = BLOCK * BLOCKS
    if pixels.shape[0] <= side or pixels.shape[1] <= side:
        return pixels[:side, :side]
    tops, lefts = (np.linspace(0, length - BLOCK, BLOCKS).astype(int) for length in pixels.shape[:2])
    rows = [np.hstack([pixels[top : top + BLOCK, left : left + BLOCK] for left in lefts]) for top in tops]
    return np.vstack(rows)


def coded_size(format: str, **options: Any) -> Callable[[Samples, int], int]:
    """For `quality_of`: what Pillow makes of pixels in that format."""

    def size(pixels: Samples, quality: int) -> int:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format, quality=quality, **options)
        return stream.tell()

    return size


def deep_colour(data: bytes, format: str, page: int = 0) -> Samples:
    """uint16 [H, W, 3 or 4] as a file holds it. Raises PictureError, and of a damaged one Pillow's errors."""
    _, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=(page, page + 1))
    read = pages[0] if pages else None
    if read is None:
        with Image.open(io.BytesIO(data), formats=[format]) as image:
            image.seek(page)
            image.load()
    if read is None or read.dtype != np.uint16 or read.ndim != 3:
        raise PictureError(f"{format} of 16 bit in a form that cannot be read: save it as PNG")
    order = [2, 1, 0, 3][: read.shape[2]]
    return np.ascontiguousarray(read[..., order])


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, whole box) at the top of a file of ISO's container, such as a JPEG 2000 or a HEIC."""
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        if size == 1 and place + 16 <= len(data):
            size = struct.unpack_from(">Q", data, place + 8)[0]
        size = size if size >= 8 else len(data) - place
        yield kind, data[place : place + size]
        place += size


class Coded(NamedTuple):
    """A frame on its way into a file: for how long it is shown, its bytes as a picture of its own, and the
    quality that was asked for."""

    milliseconds: float
    data: bytes
    quality: int | None = None


Gather = Callable[[Iterator[Coded], Picture, Image.Image, bytes, IO[bytes]], tuple[str, ...]]


Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a part of a picture."""


def changed_box(before: Samples | None, now: Samples) -> Box:
    """The smallest part in which a frame [H, W, ...] differs from the one before; all of it after none."""
    height, width = now.shape[:2]
    if before is None:
        return 0, 0, width, height
    rows, columns = (
        np.flatnonzero((before != now).reshape(height, width, -1).any((axis, 2))) for axis in (1, 0)
    )
    if not len(rows):
        return 0, 0, 1, 1
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def cropped(image: Image.Image, box: Box, **options: Any) -> bytes:
    """That part as a file of its own, of the format that the image is of."""
    stream = io.BytesIO()
    image.crop(box).save(stream, image.format, **options)
    return stream.getvalue()


@dataclass(frozen=True)
class Several:
    """How files of a format hold several frames or pages."""

    put_together: Gather
    """(coded frames in order, the source's first one, the opened source, its bytes, the empty file to write):
    what could not be kept, a sentence each."""
    footage: bool
    """Whether they are shown one after another, and not pages that know nothing of one another."""
    holds: Callable[[Image.Image, bytes], bool] = lambda image, data: has_more_frames(image)
    """Whether an opened file holds more than one."""
    parts: Callable[[bytes], Iterable[bytes]] | None = None
    """Where they stand in the file as files of their own: these."""
    coded: Callable[[bytes, int], bytes | None] = lambda data, number: None
    """The frame of that number as a picture of its own, coded as it is in the file; None where it is not all
    there."""
    own: Callable[[Image.Image], Kept] = lambda image: {}
    """What of `kept` each frame of an animation has for itself; the rest is the first one's."""
    held_as: str = ""
    """The format of coded frames where it is not this one."""


@dataclass(frozen=True)
class PictureFormat:
    """One format. A module of this room has one, `catalogue.FORMATS` all."""

    name: str
    """Pillow's."""
    suffixes: frozenset[str]
    """File name endings, in lower case with their dots, under which its pictures are looked for."""
    options: Callable[[Picture, int | None], dict[str, Any]]
    """(picture, quality from 1 to 100, or None for the source's own): what Pillow's `save` is told beside
    alpha, profile and EXIF."""
    kept: Callable[[Image.Image, bytes], Kept] = lambda image, data: {}
    """What an opened file has that a copy needs to be like it: becomes `Picture.kept`."""
    lost: Callable[[Image.Image, bytes], tuple[str, ...]] = lambda image, data: ()
    """What of an opened file a copy cannot have, as ends of a sentence, beside what the codec sees."""
    completed: Callable[[bytes, Picture], bytes] = lambda data, picture: data
    """A saved file with what Pillow does not write of what was kept."""
    shown: Callable[[Image.Image], Image.Image] = lambda image: image
    """An opened file's picture as viewers show it, where Pillow has it otherwise."""
    converted: Callable[[Image.Image, Picture], Image.Image] = lambda image, picture: image
    """What is saved, in a mode that the files hold, of RGB or RGBA."""
    alpha: bool = False
    """Whether its files hold transparency."""
    profile: bool = True
    """Whether they hold an ICC profile."""
    most_exif: int | None = None
    """Longest EXIF in bytes that they take; None: any."""
    modes: frozenset[str] = frozenset({"L"})
    """What else than RGB they hold: L (grey), CMYK (inks)."""
    deep: Callable[[Picture, int | None], bytes] | None = None
    """Files of colour with 16 bit a channel, which Pillow cannot write; None where there are none."""
    deep_read: Callable[[Image.Image, bytes], Samples | None] = lambda image, data: None
    """uint16 [H, W, 3 or 4], scaled to all of 16 bit, of an opened file with colour of more than 8 bit, which
    Pillow would halve; None of others."""
    deep_grey: bool = False
    """Whether they hold grey of 16 bit."""
    taken_for_it: tuple[str, ...] = ()
    """Pillow's names of other formats whose first picture is one of this format."""
    several: Several | None = None
    """How its files hold several frames or pages, where they may."""
    first_is_all: bool = False
    """Whether the first one of several counts as the picture that the file is."""
    lossless: Callable[[Image.Image, bytes], bool] = lambda image, data: True
    """Whether an opened file's pixels were coded without loss."""
    upright: bool = False
    """Whether Pillow turns its pictures upright by itself, by their orientation."""
    tells: Callable[[int], bool] = lambda tag: True
    """Whether an EXIF tag tells of the picture, and not of how its file is laid out."""
