"""TIFF of one page or several, of 8 or 16 bit, with its compression and its tags."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import accumulate
from typing import IO, Any

import numpy as np
import tifffile
from PIL import ExifTags, Image, TiffImagePlugin

from spair_core.images.formats.picture import Picture, PictureError, Samples
from spair_core.images.formats.picture_format import (
    SIXTEEN_BIT,
    WIDE,
    Coded,
    PictureFormat,
    Several,
    deep_colour,
    quality_of,
    resolution,
    without_thumbnails,
)

LAYOUT = frozenset({*range(255, 270), 273, 274, *range(277, 282), 284, *range(288, 294), 301})
LAYOUT |= {317, 318, 319, *range(320, 347), 347, *range(512, 533), 34675}
"""Tags that say how the file is laid out, not what is in the picture; the profile is written by itself."""
APART = 2
"""A planar configuration, which OpenCV reads wrongly: a plane a colour."""
SUB_FILES = 330
RESOURCES, LAYERS = 34377, 37724
"""Photoshop's own tags; layers are what it shows, whatever the pixels beside them."""
WHITE_IS_ZERO, RGB, LUMA_CHROMA = 0, 2, 6
"""As photometric interpretations."""
UNKNOWN, MULTIPLIED = 0, 1
"""Kinds of samples beside the colours: what is no alpha, and alpha that the colours were multiplied by."""
INSIDE = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop)
"""Directories within the directory."""
COMPRESSION, OLD_JPEG = 259, 6
STRIPS, SIZES, TILES, TILE_SIZES = 273, 279, 324, 325
DEEP_COMPRESSIONS = ("raw", "tiff_adobe_deflate", "tiff_deflate")
"""Of 16 bit of colour; others become the second."""
PREFIX = b"II*\0"
MOST_BYTES = 1 << 32
COMPRESSIONS = frozenset({"raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma"})
"""Those without loss, which a copy has as well; of the others, JPEG stays one."""


def _has_pages(image: Image.Image, data: bytes) -> bool:
    # Counting them (n_frames) would read a hostile file's millions of directories one by one.
    try:
        image.seek(image.tell() + 1)
    except EOFError:
        return False
    image.seek(image.tell() - 1)
    return True


def _kept(image: Image.Image, data: bytes) -> dict[str, Any]:
    directory = image.tag_v2  # type: ignore[attr-defined]
    size = sum(directory.get(SIZES, directory.get(TILE_SIZES, ())))
    bits = 8 * size / (image.width * image.height)
    told = {"compression": image.info.get("compression", "raw"), "bits": bits}
    if directory.get(ExifTags.Base.PhotometricInterpretation) == LUMA_CHROMA:
        told["mode"] = "YCbCr"
    return resolution(image) | told


def _lost(image: Image.Image, data: bytes) -> tuple[str, ...]:
    directory = image.tag_v2  # type: ignore[attr-defined]
    found = []
    if SUB_FILES in directory:
        found.append("pictures beside it (SubIFDs), such as previews of it as it was")
    if LAYERS in directory:
        found.append("Photoshop's layers, which showed the picture as it was")
    resources = image.getexif().get(RESOURCES)
    if isinstance(resources, bytes) and without_thumbnails(resources) != resources:
        found.append("a thumbnail, which showed the picture as it was")
    if UNKNOWN in _beside_colours(image):
        found.append("what its samples hold beside colours and alpha, such as infrared")
    bits = max(directory.get(ExifTags.Base.BitsPerSample, (8,)))
    if bits > 8 and not _is_deep(image) and image.mode not in SIXTEEN_BIT:
        found.append(f"its {bits} bit, made 8")
    if _is_deep(image) and (compression := image.info.get("compression", "raw")) not in DEEP_COMPRESSIONS:
        found.append(f"its compression ({compression}): 16 bit of colour are written in Deflate")
    return tuple(found)


def _is_deep(image: Image.Image) -> bool:
    """Whether it has red, green and blue (and alpha) of 16 bit, which Pillow would halve."""
    directory = image.tag_v2  # type: ignore[attr-defined]
    bits = directory.get(ExifTags.Base.BitsPerSample, ())
    return directory.get(ExifTags.Base.PhotometricInterpretation) == RGB and bits[:3] == (16,) * 3


def _beside_colours(image: Image.Image) -> tuple[int, ...]:
    """The kinds of its samples beside the colours."""
    directory = image.tag_v2  # type: ignore[attr-defined]
    return tuple(directory.get(ExifTags.Base.ExtraSamples, ()))


def _options(picture: Picture, quality: int | None) -> dict[str, Any]:
    """The EXIF is put in afterwards: libtiff, which compresses, refuses some."""
    asked = picture.kept.get("compression", "tiff_adobe_deflate")
    options: dict[str, Any] = {
        "exif": b"",
        **{k: v for k, v in picture.kept.items() if k not in ("bits", "mode")},
    }
    if asked == "jpeg" and picture.alpha is None:
        if quality is None:
            size = partial(_jpeg_size, picture.kept.get("mode", "RGB"))
            quality = quality_of(picture.pixels, picture.kept["bits"], size)
        return {**options, "quality": quality}
    return {**options, "compression": asked if asked in COMPRESSIONS else "tiff_adobe_deflate"}


def _jpeg_size(mode: str, pixels: Samples, quality: int) -> int:
    """Bytes of the strips, without what stands around them, which of a small picture is as much again."""
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "TIFF", compression="jpeg", quality=quality)
    with Image.open(stream) as image:
        return sum(image.tag_v2[SIZES])  # type: ignore[attr-defined]


def _as_coded(image: Image.Image, picture: Picture) -> Image.Image:
    """JPEG of red, green and blue takes several times the bytes of one of luma and chroma, or looks it."""
    is_jpeg = picture.kept.get("compression") == "jpeg" and image.mode == "RGB"
    return image.convert(picture.kept["mode"]) if is_jpeg and "mode" in picture.kept else image


def _deep(picture: Picture, quality: int | None) -> bytes:
    """By tifffile, in deflated strips."""
    planes = [picture.pixels] + ([] if picture.alpha is None else [picture.alpha[..., None]])
    raw = picture.kept.get("compression") == "raw"
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        np.concatenate(planes, axis=2),
        photometric="rgb",
        compression=None if raw else "zlib",
        predictor=not raw,
        extrasamples=None if picture.alpha is None else ["unassalpha"],
        resolution=picture.kept.get("dpi"),
        resolutionunit="INCH" if "dpi" in picture.kept else None,
        iccprofile=picture.icc_profile,
        metadata=None,
        software=False,
    )
    return stream.getvalue()


def _deep_read(image: Image.Image, data: bytes) -> Samples | None:
    if not _is_deep(image):
        return None
    samples = _all_samples(image, data)[..., : len(image.getbands())]
    return _divided(samples) if _beside_colours(image)[:1] == (MULTIPLIED,) else samples


def _all_samples(image: Image.Image, data: bytes) -> Samples:
    if image.tag_v2.get(ExifTags.Base.PlanarConfiguration) != APART:  # type: ignore[attr-defined]
        return deep_colour(data, "TIFF", image.tell())
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            planes = np.moveaxis(file.pages[image.tell()].asarray(), 0, 2)
    except ValueError as error:
        if "imagecodecs" not in str(error):  # of which this compression would have need
            raise
        raise PictureError(
            f"a TIFF of 16 bit and planes, {image.info['compression']}: save it as PNG"
        ) from error
    return np.ascontiguousarray(planes).astype(np.uint16)


def _shown(image: Image.Image) -> Image.Image:
    """With more for brighter, which Pillow sees to in 8 bit alone."""
    directory = image.tag_v2  # type: ignore[attr-defined]
    inverse = directory.get(ExifTags.Base.PhotometricInterpretation) == WHITE_IS_ZERO
    if not (inverse and image.mode in SIXTEEN_BIT):
        return image
    return Image.fromarray((WIDE - np.asarray(image)).astype(np.uint16))


def _divided(samples: Samples) -> Samples:
    """Colours as they were before they were multiplied by their alpha, which is how copies are written."""
    wide = samples.astype(np.uint32)
    alpha = wide[..., 3:]
    wide[..., :3] = np.minimum((wide[..., :3] * WIDE + alpha // 2) // np.maximum(alpha, 1), WIDE)
    return wide.astype(np.uint16)


def _completed(data: bytes, picture: Picture) -> bytes:
    """With the tags, which it is laid out anew for."""
    if not picture.exif:
        return data
    stream = io.BytesIO()
    put_together([data], stream, picture.exif)
    return stream.getvalue()


def put_together(files: Iterable[bytes], target: IO[bytes], exif: bytes = b"") -> None:
    """Write files of one page, as this module makes them, as pages of one, with the tags of an EXIF beside
    those that they have. Raises PictureError over 4 GB."""
    target.write(PREFIX + bytes(4))
    link = len(PREFIX)  # where the place of the next directory is written
    for data in files:
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
            directory = _directory(image, exif)
        link = _laid(directory, data, target, link)


def _directory(image: Image.Image, exif: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    told = Image.Exif()
    told.load(exif)
    directory = TiffImagePlugin.ImageFileDirectory_v2(PREFIX + bytes(4))
    own = image.tag_v2  # type: ignore[attr-defined]
    for tags, found in ((own, image.getexif()), (told, told)):
        for tag in (tag for tag in tags if tag != SUB_FILES):
            directory[tag] = found.get_ifd(tag) if tag in INSIDE else tags[tag]
            if tag not in INSIDE and tag in (kinds := getattr(tags, "tagtype", {})):
                directory.tagtype[tag] = kinds[tag]
    if isinstance(resources := told.get(RESOURCES), bytes):
        directory[RESOURCES] = without_thumbnails(resources)
    return directory


def _laid(directory: TiffImagePlugin.ImageFileDirectory_v2, data: bytes, target: IO[bytes], link: int) -> int:
    """Write a page and its place where the last one asks for it; where it asks for the next one's."""
    offsets, lengths = (STRIPS, SIZES) if STRIPS in directory else (TILES, TILE_SIZES)
    parts = [
        data[start : start + size] for start, size in zip(directory[offsets], directory[lengths], strict=True)
    ]
    directory.tagtype[offsets] = TiffImagePlugin.TiffTags.LONG
    here = target.tell()
    # Of strips, Pillow adds the place at which the directory ends.
    end = 0 if offsets == STRIPS else here + len(directory.tobytes(here))
    directory[offsets] = tuple(end + place for place in accumulate(map(len, parts[:-1]), initial=0))
    written = directory.tobytes(here) + b"".join(parts)
    if here + len(written) >= MOST_BYTES:
        raise PictureError("over 4 GB, which is the most that a TIFF takes")
    target.write(written + bytes(len(written) % 2))
    target.seek(link)
    target.write(struct.pack("<I", here))
    target.seek(0, io.SEEK_END)
    return here + 2 + 12 * int(struct.unpack_from("<H", written)[0])


def _coded(data: bytes, number: int) -> bytes | None:
    """A page as a file of its own, strip by strip as it is."""
    if not data.startswith(PREFIX):
        return None
    stream = io.BytesIO()
    stream.write(PREFIX + bytes(4))
    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        image.seek(number)
        directory = _directory(image, b"")
    if directory[COMPRESSION] == OLD_JPEG:
        return None
    _laid(directory, data, stream, len(PREFIX))
    return stream.getvalue()


def _is_lossless(image: Image.Image, data: bytes) -> bool:
    return image.info.get("compression") not in ("jpeg", "tiff_jpeg", "webp")


def _paged(
    pages: Iterator[Coded], first: Picture, image: Image.Image, source: bytes, target: IO[bytes]
) -> tuple[str, ...]:
    put_together((page.data for page in pages), target)
    return ()


TIFF = PictureFormat(
    "TIFF",
    frozenset({".tif", ".tiff"}),
    _options,
    _kept,
    _lost,
    _completed,
    alpha=True,
    modes=frozenset({"L", "CMYK"}),
    deep=_deep,
    deep_read=_deep_read,
    deep_grey=True,
    several=Several(_paged, footage=False, holds=_has_pages, coded=_coded),
    lossless=_is_lossless,
    upright=True,
    converted=_as_coded,
    shown=_shown,
    tells=lambda tag: tag not in LAYOUT and tag != LAYERS,
)
