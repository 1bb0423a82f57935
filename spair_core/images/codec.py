"""Untrusted bytes to pictures and back.

The header is read and held against limits before a single pixel is decoded; only the formats named
here are opened at all. What is not colour (alpha, ICC profile, EXIF, text, resolution) is carried along, and
how the file was coded, so that a restored one has it too; what cannot be is named. A file of several frames
or pages is refused here, as its first one is not all of it: `frames` reads those. A JPEG with several
pictures in it (MPO), such as a phone's with a gain map or a preview, counts as its first; the rest is kept.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from spair_core.images.formats.catalogue import FORMATS, format_of
from spair_core.images.formats.picture import Picture, PictureError, Samples
from spair_core.images.formats.picture_format import SIXTEEN_BIT, WIDE, PictureFormat

NAMES = tuple(one.name for one in FORMATS)
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
ORIENTATION_IN_XMP = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>\s*))[2-8]")
MOST_BARE_EXIF = 32
"""Bytes of an EXIF that says nothing, or nothing but how to turn the picture."""
DAMAGE = (
    OSError,
    RuntimeError,
    cv2.error,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    AssertionError,
    struct.error,
)
"""What Pillow, OpenCV and libheif raise on damaged files."""


@dataclass(frozen=True)
class DecodeLimits:
    """What is refused before decoding."""

    max_pixels: int = 100_000_000
    """Width times height."""
    max_bytes: int = 500_000_000
    """Size of the file."""
    max_frames: int = 10_000
    """Frames or pages of a file."""
    max_frames_pixels: int = 4_000_000_000
    """Pixels of all of them together: as many as 2,000 frames of full HD have."""


def probe(data: bytes, limits: DecodeLimits | None = None) -> tuple[int, int]:
    """Width and height, upright, from the header alone. Raises PictureError."""
    with opened(data, limits or DecodeLimits()) as image:
        lying = not format_of(image.format).upright and orientation(image) >= 5
        return (image.height, image.width) if lying else image.size


def decode(data: bytes, limits: DecodeLimits | None = None, *, deep: bool = False) -> Picture:
    """A picture from untrusted bytes; `deep` keeps 16 bit a channel, which are else made 8.

    Raises PictureError: empty, no picture, another format, over a limit, several frames, cut short.
    """
    with opened(data, limits or DecodeLimits()) as image:
        form = format_of(image.format)
        if form.several is not None and not form.first_is_all and form.several.holds(image, data):
            raise PictureError("it holds several frames or pages; save them as pictures or as a clip")
        return decoded(image, data, deep=deep)


def decoded(image: Image.Image, data: bytes, *, deep: bool, beside: Picture | None = None) -> Picture:
    """The frame that an opened file is at; what stands `beside` it is taken from another one, if given."""
    form = format_of(image.format)
    samples = form.deep_read(image, data) if deep else None
    lossless = form.lossless(image, data)
    # Before it is loaded: some formats' EXIF is no more as it was afterwards.
    kept = form.kept(image, data) if beside is None else beside.kept
    lost = form.lost(image, data) if beside is None else beside.lost
    if samples is None:
        image.load()
    turned = orientation(image)
    if beside is not None:
        pixels, alpha = _to_rgb(_upright(form.shown(image), turned), deep=deep)
        own = form.several.own(image) if form.several else {}
        return replace(beside, pixels=pixels, alpha=alpha, kept={**beside.kept, **own})
    mode: Literal["RGB", "L", "CMYK"] = _mode(image)
    exif = _exif_without_orientation(image, form)
    if samples is not None:
        pixels, alpha, inks = (*_split(_turned(samples, turned)), None)
    else:
        upright = _upright(form.shown(image), turned)
        pixels, alpha, inks = (*_to_rgb(upright, deep=deep), _inks(upright))
    profile = _profile(image, mode)
    lost = (*lost, *_lost(image, form, alpha is not None, exif, profile))
    lost = tuple(what if what.startswith("not ") else f"not kept: {what}" for what in lost)
    kept = {name: _upright_xmp(value) if name == "xmp" else value for name, value in kept.items()}
    return Picture(pixels, form.name, alpha, profile, exif, lossless, mode, inks, kept, lost)


def _upright(image: Image.Image, turned: int) -> Image.Image:
    turn = TURNS.get(turned)
    return image if turn is None else image.transpose(turn)


def _upright_xmp(xmp: bytes) -> bytes:
    """Without an orientation that would turn the picture again."""
    return ORIENTATION_IN_XMP.sub(rb"\g<1>1", xmp)


def _lost(
    image: Image.Image, form: PictureFormat, alpha: bool, exif: bytes | None, profile: bytes | None
) -> tuple[str, ...]:
    """What of a file the codec sees that a copy cannot have."""
    found = []
    if alpha and not form.alpha:
        found.append(f"its transparency, which {form.name} pictures are written without")
    if image.info.get("icc_profile") and profile is None:
        found.append("its colour profile, which is for other colours than its own or cannot be read")
    if form.most_exif == 0:
        return tuple(found)
    if form.most_exif is not None and len(exif or b"") > form.most_exif:
        found.append(f"its EXIF, of more than {form.most_exif:,} bytes")
    if exif is None and len(image.info.get("exif") or b"") > MOST_BARE_EXIF:
        found.append("its EXIF, which cannot be read")
    if _has_thumbnail(image):
        found.append("the thumbnail in its EXIF, which showed the picture as it was")
    return tuple(found)


def _has_thumbnail(image: Image.Image) -> bool:
    try:
        return ExifTags.Base.JpegIFOffset in image.getexif().get_ifd(ExifTags.IFD.IFD1)
    except DAMAGE:
        return False


def encode(picture: Picture, *, quality: int | None = None) -> bytes:
    """The picture in its own format; `quality` 1 to 100 holds for lossy ones, None is the source's own where
    that can be told.

    The same picture gives the same bytes. Raises PictureError where the format has no 16 bit.
    """
    form = format_of(picture.format)
    grey = picture.mode == "L" and form.deep_grey and picture.alpha is None
    if picture.pixels.dtype == np.uint16 and not grey:
        if form.deep is None:
            raise PictureError(f"{form.name} holds no 16 bit of colour")
        return form.completed(form.deep(picture, quality), picture)
    image = form.converted(_image(picture, form), picture)
    options = form.options(picture, quality)
    of_its_colours = image.mode in ("RGB", "RGBA", "YCbCr") or picture.mode in form.modes
    if picture.icc_profile and form.profile and of_its_colours:
        options["icc_profile"] = picture.icc_profile
    too_long = form.most_exif is not None and len(picture.exif or b"") > form.most_exif
    if picture.exif and not too_long:
        options.setdefault("exif", picture.exif)
    stream = io.BytesIO()
    image.save(stream, format=form.name, **options)
    return form.completed(stream.getvalue(), picture)


def _image(picture: Picture, form: PictureFormat) -> Image.Image:
    """In the mode that the source had, where the format has it."""
    alpha = picture.alpha if form.alpha else None
    if picture.mode == "L" and "L" in form.modes:
        image = Image.fromarray(_grey(picture.pixels))
        return image if alpha is None else _with_alpha(image, alpha)
    image = Image.fromarray(picture.pixels)
    if picture.mode == "CMYK" and "CMYK" in form.modes and picture.inks is not None:
        # What did not change keeps its inks: RGB does not say how much of them was black.
        same = (np.asarray(Image.fromarray(picture.inks, "CMYK").convert("RGB")) == picture.pixels).all(
            axis=2
        )
        mixed = np.where(same[..., None], picture.inks, np.asarray(image.convert("CMYK")))
        return Image.fromarray(mixed.astype(np.uint8), "CMYK")
    return image if alpha is None else _with_alpha(image, alpha)


def _with_alpha(image: Image.Image, alpha: Samples) -> Image.Image:
    image.putalpha(Image.fromarray(alpha))
    return image


def _grey(pixels: Samples) -> Samples:
    """Luma [H, W]; of equal channels, their value."""
    luma = pixels.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return np.asarray(luma.round().astype(pixels.dtype))


def decode_mask(data: bytes, limits: DecodeLimits | None = None) -> NDArray[np.bool_]:
    """bool [H, W] from a mask picture: degraded where it is brighter than half. Raises PictureError."""
    return np.asarray(decode(data, limits).pixels.max(axis=2) > 127)


def eight_bit(pixels: Samples) -> NDArray[np.uint8]:
    """Of 16 bit a channel the upper 8, rounded; of 8 bit the same."""
    if pixels.dtype == np.uint8:
        return pixels
    return np.asarray(((pixels.astype(np.int64) + 128) // 257).astype(np.uint8))


def encode_png(pixels: NDArray[np.uint8] | NDArray[np.bool_]) -> bytes:
    """PNG bytes of uint8 [H, W, 3] or [H, W], or of a mask bool [H, W] (255 = degraded)."""
    values = pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, format="PNG")
    return stream.getvalue()


@contextmanager
def opened(data: bytes, limits: DecodeLimits) -> Iterator[Image.Image]:
    """An opened file whose header is within the limits; what goes wrong inside is a PictureError."""
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
        raise PictureError(_unidentified(data)) from error
    except Image.DecompressionBombError as error:
        most = min(limits.max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or limits.max_pixels))
        raise PictureError(f"more pixels than the limit of {most:,}") from error
    except DAMAGE as error:
        raise PictureError(f"damaged or cut short: {' '.join(str(error).split())}") from error


def _unidentified(data: bytes) -> str:
    """Why Pillow finds no picture: it begins as none does, or as one of a kind that is not read."""
    for name in NAMES:
        accepts = Image.OPEN[name][1]
        if accepts is not None and accepts(data[:16]) is True:
            return (
                f"a {name} that is damaged, or of a kind that cannot be read (floating point, 12 bit, grey "
                "with alpha of 16 bit); save it anew with 8 or 16 bit a channel"
            )
    return f"not a picture of a known format ({', '.join(NAMES)})"


def _check_header(image: Image.Image, limits: DecodeLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise PictureError(f"{width}x{height} has more pixels than the limit of {limits.max_pixels:,}")


def _profile(image: Image.Image, mode: str) -> bytes | None:
    """The profile, where it is for the colours that are kept."""
    profile = image.info.get("icc_profile")
    space = {"RGB": b"RGB ", "L": b"GRAY", "CMYK": b"CMYK"}[mode]
    return profile if profile and profile[16:20] == space else None


def _mode(image: Image.Image) -> Literal["RGB", "L", "CMYK"]:
    if image.mode in ("L", "LA", "La", "I", *SIXTEEN_BIT):
        return "L"
    return "CMYK" if image.mode == "CMYK" else "RGB"


def _inks(image: Image.Image) -> NDArray[np.uint8] | None:
    return np.asarray(image) if image.mode == "CMYK" else None


def _split(samples: NDArray[np.uint16]) -> tuple[Samples, Samples | None]:
    return np.ascontiguousarray(samples[..., :3]), samples[..., 3].copy() if samples.shape[2] == 4 else None


def _turned(samples: NDArray[np.uint16], orientation: int) -> NDArray[np.uint16]:
    """As `TURNS` does with an image."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    vertical = -1 if orientation in (3, 4, 7, 8) else 1
    horizontal = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(samples[::vertical, ::horizontal])


def orientation(image: Image.Image) -> int:
    """By its EXIF, as a number of `TURNS`; 1 where it is upright."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DAMAGE:
        return 1
    return value if value in TURNS else 1


def _exif_without_orientation(image: Image.Image, form: PictureFormat) -> bytes | None:
    try:
        exif = image.getexif()
        exif.bigtiff = False
        turned = exif.get(ExifTags.Base.Orientation)
        for tag in list(exif):
            if tag == ExifTags.Base.Orientation or not form.tells(tag):
                del exif[tag]
        written = exif.tobytes() if len(exif) else None
        if turned is not None:  # for the frames to come
            exif[ExifTags.Base.Orientation] = turned
        return written
    except DAMAGE:
        return None


def _to_rgb(image: Image.Image, *, deep: bool) -> tuple[Samples, Samples | None]:
    if image.mode in SIXTEEN_BIT or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.int64)
        wide = np.clip(values, 0, WIDE).astype(np.uint16)
        grey = wide if deep else eight_bit(wide)
        clear = image.info.get("transparency")
        alpha = None if clear is None else (wide != clear) * grey.dtype.type(np.iinfo(grey.dtype).max)
        return np.repeat(grey[..., None], 3, axis=2), alpha
    if image.mode in ("F", "I"):
        raise PictureError("pixels of 32 bits have no fixed range; save the picture with 8 or 16 bits")
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3])
    return np.array(image.convert("RGB")), None
