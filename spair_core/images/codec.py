"""Untrusted bytes to pictures and back.

The header is read and held against limits before a single pixel is decoded; only the formats named
here are opened at all. What is not colour (alpha, ICC profile, EXIF) is carried along, so that a
restored file has it too. A phone's JPEG with several pictures in it (MPO) counts as its first one.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from spair_core.images.formats.catalogue import FORMATS, format_of
from spair_core.images.formats.picture import Picture, PictureError
from spair_core.images.formats.picture_format import PictureFormat

NAMES = tuple(one.name for one in FORMATS)
SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each EXIF orientation upright."""
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, struct.error)
"""What Pillow raises on damaged files."""


@dataclass(frozen=True)
class DecodeLimits:
    """What is refused before decoding."""

    max_pixels: int = 100_000_000
    """Width times height."""
    max_bytes: int = 500_000_000
    """Size of the file."""


def probe(data: bytes, limits: DecodeLimits | None = None) -> tuple[int, int]:
    """Width and height, upright, from the header alone. Raises PictureError."""
    with _opened(data, limits or DecodeLimits()) as image:
        lying = not format_of(image.format).upright and _orientation(image) >= 5
        return (image.height, image.width) if lying else image.size


def decode(data: bytes, limits: DecodeLimits | None = None) -> Picture:
    """A picture from untrusted bytes.

    Raises PictureError: empty, no picture, another format, over a limit, animated, cut short.
    """
    with _opened(data, limits or DecodeLimits()) as image:
        form = format_of(image.format)
        image.load()
        turn = TURNS.get(_orientation(image))
        pixels, alpha = _to_rgb(image if turn is None else image.transpose(turn))
        return Picture(
            pixels,
            form.name,
            alpha,
            _rgb_profile(image),
            _exif_without_orientation(image, form),
            form.lossless(data),
        )


def encode(picture: Picture, *, quality: int = 95) -> bytes:
    """The picture in its own format; `quality` 1 to 100 holds for JPEG and lossy WebP.

    The same picture gives the same bytes.
    """
    form = format_of(picture.format)
    image = Image.fromarray(picture.pixels)
    if picture.alpha is not None and form.alpha:
        image.putalpha(Image.fromarray(picture.alpha))
    options = form.options(picture, quality)
    if picture.icc_profile and form.profile:
        options["icc_profile"] = picture.icc_profile
    too_long = form.most_exif is not None and len(picture.exif or b"") > form.most_exif
    if picture.exif and not too_long:
        options["exif"] = picture.exif
    stream = io.BytesIO()
    image.save(stream, format=form.name, **options)
    return stream.getvalue()


def decode_mask(data: bytes, limits: DecodeLimits | None = None) -> NDArray[np.bool_]:
    """bool [H, W] from a mask picture: degraded where it is brighter than half. Raises PictureError."""
    return np.asarray(decode(data, limits).pixels.max(axis=2) > 127)


def encode_png(pixels: NDArray[np.uint8] | NDArray[np.bool_]) -> bytes:
    """PNG bytes of uint8 [H, W, 3] or [H, W], or of a mask bool [H, W] (255 = degraded)."""
    values = pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, format="PNG")
    return stream.getvalue()


@contextmanager
def _opened(data: bytes, limits: DecodeLimits) -> Iterator[Image.Image]:
    if not data:
        raise PictureError("the file is empty")
    if len(data) > limits.max_bytes:
        raise PictureError(f"the file has {len(data):,} bytes, over the limit of {limits.max_bytes:,}")
    try:
        with warnings.catch_warnings():
            # Our own limit on pixels follows; Pillow's would only warn, or refuse in other words.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=NAMES) as image:
                _check_header(image, limits)
                yield image
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"not a picture of a known format ({', '.join(NAMES)})") from error
    except Image.DecompressionBombError as error:
        most = min(limits.max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or limits.max_pixels))
        raise PictureError(f"more pixels than the limit of {most:,}") from error
    except DAMAGE as error:
        raise PictureError(f"damaged or cut short: {error}") from error


def _check_header(image: Image.Image, limits: DecodeLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise PictureError(f"{width}x{height} has more pixels than the limit of {limits.max_pixels:,}")
    if format_of(image.format).several(image):
        raise PictureError("it holds several frames or pages; save them as pictures or as a clip")


def _rgb_profile(image: Image.Image) -> bytes | None:
    profile = image.info.get("icc_profile")
    return profile if profile and profile[16:20] == b"RGB " else None


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DAMAGE:
        return 1
    return value if value in TURNS else 1


def _exif_without_orientation(image: Image.Image, form: PictureFormat) -> bytes | None:
    try:
        exif = image.getexif()
        for tag in list(exif):
            if tag == ExifTags.Base.Orientation or not form.tells(tag):
                del exif[tag]
        return exif.tobytes() if len(exif) else None
    except DAMAGE:
        return None


def _to_rgb(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    if image.mode in SIXTEEN_BIT or (image.mode == "I" and image.format == "PNG"):
        values = np.asarray(image).astype(np.int64)
        grey = np.clip((values + 128) // 257, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2), None
    if image.mode in ("F", "I"):
        raise PictureError("pixels of 32 bits have no fixed range; save the picture with 8 or 16 bits")
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3])
    return np.array(image.convert("RGB")), None
