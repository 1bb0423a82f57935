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
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""File name endings under which pictures of these formats are looked for."""
WITH_ALPHA = frozenset({"PNG", "WEBP", "TIFF"})
SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
JPEG_EXIF_BYTES = 65_533
"""Longest EXIF that a JPEG's segment takes."""
WEBP_CHUNKS = 100
"""Chunks of a WebP that are looked through for its pixels."""
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
DESCRIPTIVE = frozenset(
    {
        ExifTags.Base.ImageDescription,
        ExifTags.Base.Make,
        ExifTags.Base.Model,
        ExifTags.Base.XResolution,
        ExifTags.Base.YResolution,
        ExifTags.Base.ResolutionUnit,
        ExifTags.Base.Software,
        ExifTags.Base.DateTime,
        ExifTags.Base.Artist,
        ExifTags.Base.HostComputer,
        ExifTags.Base.Copyright,
        ExifTags.Base.ExifOffset,
        ExifTags.Base.GPSInfo,
    }
)
"""Tags of a TIFF that tell of the picture and not of how its file is laid out."""
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, struct.error)
"""What Pillow raises on damaged files."""


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

    `lossless` says whether a WebP was; `exif` has its orientation removed (it is applied). A profile
    that is not for RGB is left out, and so is EXIF that cannot be read.
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
    """Width and height, upright, from the header alone. Raises PictureError."""
    with _opened(data, limits or DecodeLimits()) as image:
        lying = image.format != "TIFF" and _orientation(image) >= 5  # Pillow turns a TIFF by itself
        return (image.height, image.width) if lying else image.size


def decode(data: bytes, limits: DecodeLimits | None = None) -> Picture:
    """A picture from untrusted bytes.

    Raises PictureError: empty, no picture, another format, over a limit, animated, cut short.
    """
    with _opened(data, limits or DecodeLimits()) as image:
        image.load()
        turn = TURNS.get(_orientation(image))
        pixels, alpha = _to_rgb(image if turn is None else image.transpose(turn))
        return Picture(
            pixels,
            "JPEG" if image.format == "MPO" else image.format or "",
            alpha,
            _rgb_profile(image),
            _exif_without_orientation(image),
            image.format != "WEBP" or _is_lossless_webp(data),
        )


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
        # libtiff, which compresses, refuses some EXIF that Pillow's own writer takes.
        options = {"compression": "raw" if picture.exif else "tiff_deflate"}
    elif picture.format == "PNG":
        options = {"compress_level": 4}
    if picture.icc_profile and picture.format != "BMP":
        options["icc_profile"] = picture.icc_profile
    too_long = picture.format == "JPEG" and len(picture.exif or b"") > JPEG_EXIF_BYTES
    if picture.exif and picture.format != "BMP" and not too_long:
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
        most = min(limits.max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or limits.max_pixels))
        raise PictureError(f"more pixels than the limit of {most:,}") from error
    except DAMAGE as error:
        raise PictureError(f"damaged or cut short: {error}") from error


def _check_header(image: Image.Image, limits: DecodeLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise PictureError(f"{width}x{height} has more pixels than the limit of {limits.max_pixels:,}")
    if _has_more_frames(image):
        raise PictureError("it holds several frames or pages; save them as pictures or as a clip")


def _has_more_frames(image: Image.Image) -> bool:
    if image.format != "TIFF":
        return image.format != "MPO" and getattr(image, "is_animated", False)
    # Counting them (n_frames) would read a hostile file's millions of directories one by one.
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _is_lossless_webp(data: bytes) -> bool:
    place = 12
    for _ in range(WEBP_CHUNKS):
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8L"
        place += 8 + size + size % 2
    return False


def _rgb_profile(image: Image.Image) -> bytes | None:
    profile = image.info.get("icc_profile")
    return profile if profile and profile[16:20] == b"RGB " else None


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DAMAGE:
        return 1
    return value if value in TURNS else 1


def _exif_without_orientation(image: Image.Image) -> bytes | None:
    try:
        exif = image.getexif()
        for tag in list(exif):
            if tag == ExifTags.Base.Orientation or (image.format == "TIFF" and tag not in DESCRIPTIVE):
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
