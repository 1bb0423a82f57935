"""Files of several frames or pages: read one after another, and put together from coded ones.

Frames of an animation are whole pictures here, as players show them, whatever piece of the canvas each one
changes in the file; pages may differ in size, mode and depth. One is held at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from spair_core.images.codec import DAMAGE, DecodeLimits, decode, decoded, encode, opened, orientation
from spair_core.images.formats.catalogue import format_of
from spair_core.images.formats.picture import Picture, PictureError
from spair_core.images.formats.picture_format import Coded, Several

LEAST_SHOWN, INSTEAD = 0.011, 0.1
"""Seconds: what is to be shown more briefly than the first, players show for the second."""


@dataclass(frozen=True)
class Frame:
    """A frame or page: its picture, from when it is shown, in seconds, and for how long by its file.

    Pages are all at 0. `coded` is what stands for it in the file, where that can be used again as it is.
    """

    picture: Picture
    seconds: float = 0.0
    milliseconds: float = 0.0
    coded: bytes | None = None


def holds_several(data: bytes) -> bool:
    """Whether bytes are a file of several frames or pages; of what is no picture, that it is none."""
    try:
        with opened(data, DecodeLimits()) as image:
            several = format_of(image.format).several
            return several is not None and several.holds(image, data)
    except PictureError:
        return False


def is_footage(data: bytes) -> bool:
    """Whether the frames of such a file are shown one after another. Raises PictureError."""
    with opened(data, DecodeLimits()) as image:
        return _several(image).footage


def frames(data: bytes, limits: DecodeLimits | None = None, *, deep: bool = False) -> Iterator[Frame]:
    """The frames or pages in order; `deep` keeps 16 bit a channel.

    Raises PictureError: as `decode` does, and where there are too many, or together too large.
    """
    limits = limits or DecodeLimits()
    with opened(data, limits) as image:
        several = _several(image)
        if several.footage:  # before the first of them is decoded
            _check(image.n_frames, image.n_frames * image.width * image.height, limits)  # type: ignore[attr-defined]
        if several.parts is not None:
            found = _split(several.parts(data), limits, deep=deep)
        else:
            found = _seen(image, data, several, deep=deep)
        pixels = 0
        for number, frame in enumerate(found):
            height, width = frame.picture.pixels.shape[:2]
            pixels += height * width
            _check(number + 1, pixels, limits)
            yield frame


def _check(count: int, pixels: int, limits: DecodeLimits) -> None:
    if count > limits.max_frames or pixels > limits.max_frames_pixels:
        most = f"{limits.max_frames:,} frames or pages, or over {limits.max_frames_pixels:,} pixels in them"
        raise PictureError(f"it holds over {most}")


def _several(image: Image.Image) -> Several:
    several = format_of(image.format).several
    if several is None:
        raise PictureError(f"a {image.format} holds no more than one picture")
    return several


def _split(parts: Iterable[bytes], limits: DecodeLimits, *, deep: bool) -> Iterator[Frame]:
    for part in parts:
        yield Frame(decode(part, limits, deep=deep), coded=part)


def _seen(image: Image.Image, data: bytes, several: Several, *, deep: bool) -> Iterator[Frame]:
    number, seconds = 0, 0.0
    first: Picture | None = None
    while _turned_to(image, number):
        # What stands beside the frames of an animation is said once, and found by reading all of it.
        beside = first if several.footage else None
        # Of an animation, what can be seen through is put together of 8 bit.
        whole = deep and not (several.footage and image.has_transparency_data)
        picture = decoded(image, data, deep=whole, beside=beside)
        first = first or picture
        if several.footage and picture.pixels.shape != first.pixels.shape:
            raise PictureError(f"frame {number} is larger than the canvas, or another mode")
        shown = float(image.info.get("duration") or 0)
        as_it_is = several.coded(data, number) if orientation(image) == 1 else None
        yield Frame(picture, seconds, shown, as_it_is)
        seconds += (shown / 1000 if shown / 1000 >= LEAST_SHOWN else INSTEAD) if several.footage else 0
        number += 1
    if several.footage and number < image.n_frames:  # type: ignore[attr-defined]
        raise PictureError(_cut(image, number))


def _turned_to(image: Image.Image, number: int) -> bool:
    try:
        image.seek(number)
    except EOFError:
        return False
    except DAMAGE as error:
        raise PictureError(f"{_cut(image, number)}: {error}") from error
    return True


def _cut(image: Image.Image, number: int) -> str:
    # Of a TIFF, whose directories are many, it is not asked.
    promised = "" if image.format == "TIFF" else f" of the {getattr(image, 'n_frames', 1)} that it tells of"
    return f"damaged or cut short: {number} frames or pages{promised} are there"


def encode_frame(frame: Frame, *, quality: int | None = None, unchanged: bool = False) -> Coded:
    """A frame on its way into a file; an unchanged one as it stood in it, where it can be used again so."""
    several = format_of(frame.picture.format).several
    assert several is not None
    if unchanged and frame.coded is not None:
        return Coded(frame.milliseconds, frame.coded, quality)
    picture = frame.picture
    if several.held_as:
        picture = replace(picture, format=several.held_as, kept={}, exif=None, icc_profile=None, mode="RGB")
    return Coded(frame.milliseconds, encode(picture, quality=quality), quality)


def put_together(coded: Iterable[Coded], source: bytes, target: Path) -> tuple[str, ...]:
    """Write a file like the source, of coded frames: what could not be kept, a sentence each.

    Raises PictureError where they are more than the format holds.
    """
    with opened(source, DecodeLimits()) as image, target.open("w+b") as file:
        several = _several(image)
        first = decoded(image, source, deep=False)
        return several.put_together(iter(coded), first, image, source, file)
