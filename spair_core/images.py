"""Untrusted bytes to pictures and back.

The header is read and held against limits before a single pixel is decoded; only the formats named
here are opened at all. What is not colour (alpha, ICC profile, EXIF) is carried along, so that a
restored file has it too.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""File name endings under which pictures of these formats are looked for."""
WITH_ALPHA = frozenset({"PNG", "WEBP", "TIFF"})
SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})


class PictureError(ValueError):
    """These bytes are not a picture that can be restored; the message says why."""


@dataclass(frozen=True)
class DecodeLimits:
    """What is refused before decoding."""

    max_pixels: int = 100_000_000
    """Width times height."""
    max_bytes: int = 500_000_000
    """Size of the file."""


@dataclass(frozen=True)
class Picture:
    """`pixels` uint8 [H, W, 3] RGB, upright; the rest is what an encoded copy must keep.

    `lossless` says whether a WebP was; `exif` has its orientation removed (it is applied).
    """

    pixels: NDArray[np.uint8]
    format: str
    alpha: NDArray[np.uint8] | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    lossless: bool = True

    def with_pixels(self, pixels: NDArray[np.uint8]) -> Picture:
        """The same file with other pixels. Raises ValueError where the size differs."""
        if pixels.shape != self.pixels.shape:
            raise ValueError(f"the picture is {self.pixels.shape}, its replacement {pixels.shape}")
        return replace(self, pixels=pixels)


def probe(data: bytes, limits: DecodeLimits | None = None) -> tuple[int, int]:
    """Width and height from the header alone. Raises PictureError."""
    with _opened(data, limits or DecodeLimits()) as image:
        return image.size


def decode(data: bytes, limits: DecodeLimits | None = None) -> Picture:
    """A picture from untrusted bytes.

    Raises PictureError: empty, no picture, another format, over a limit, animated, cut short.
    """
    with _opened(data, limits or DecodeLimits()) as image:
        name, icc, lossless = image.format or "", image.info.get("icc_profile"), not _is_lossy(image, data)
        image.load()
        upright = ImageOps.exif_transpose(image)
        exif = _exif_without_orientation(upright)
        pixels, alpha = _to_rgb(upright)
    return Picture(pixels, name, alpha, icc, exif, lossless)


def encode(picture: Picture, *, quality: int = 95) -> bytes:
    """The picture in its own format; `quality` 1 to 100 holds for JPEG and lossy WebP.

    The same picture gives the same bytes.
    """
    image = Image.fromarray(picture.pixels)
    if picture.alpha is not None and picture.format in WITH_ALPHA:
        image.putalpha(Image.fromarray(picture.alpha))
    options: dict[str, object] = {}
    if picture.format == "JPEG":
        options = {"quality": quality, "subsampling": 0}
    elif picture.format == "WEBP":
        options = {"lossless": picture.lossless, "quality": 80 if picture.lossless else quality}
    elif picture.format == "TIFF":
        options = {"compression": "tiff_deflate"}
    elif picture.format == "PNG":
        options = {"compress_level": 4}
    if picture.icc_profile and picture.format != "BMP":
        options["icc_profile"] = picture.icc_profile
    if picture.exif and picture.format != "BMP":
        options["exif"] = picture.exif
    stream = io.BytesIO()
    image.save(stream, format=picture.format, **options)
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
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_header(image, limits)
                yield image
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"not a picture of a known format ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"more pixels than the limit of {limits.max_pixels:,}") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        TypeError,
        KeyError,
        struct.error,
    ) as error:
        raise PictureError(f"damaged or cut short: {error}") from error


def _check_header(image: Image.Image, limits: DecodeLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise PictureError(f"{width}x{height} has more pixels than the limit of {limits.max_pixels:,}")
    if getattr(image, "n_frames", 1) > 1:
        raise PictureError("it holds several frames or pages; save them as pictures or as a clip")


def _is_lossy(image: Image.Image, data: bytes) -> bool:
    return image.format == "JPEG" or (image.format == "WEBP" and b"VP8L" not in data[:64])


def _exif_without_orientation(image: Image.Image) -> bytes | None:
    exif = image.getexif()
    exif.pop(ExifTags.Base.Orientation, None)
    return exif.tobytes() if len(exif) else None


def _to_rgb(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    if image.mode in SIXTEEN_BIT:
        values = np.asarray(image).astype(np.int64)
        grey = np.clip((values + 128) // 257, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2), None
    if image.mode == "F":
        raise PictureError("floating-point pixels have no fixed range; save the picture with 8 or 16 bits")
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3])
    return np.array(image.convert("RGB")), None
