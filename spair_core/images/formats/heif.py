"""AVIF and HEIC, two codecs in one kind of container; both get the quality that gives their source's size."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import IO, Any

import cv2
import numpy as np
import pillow_heif
from PIL import Image

from spair_core.images.formats.picture import Picture, PictureError, Samples
from spair_core.images.formats.picture_format import (
    Coded,
    PictureFormat,
    Several,
    bits_a_pixel,
    boxes,
    coded_size,
    has_more_frames,
    quality_of,
)

AVIF_QUALITY = 85
HEIC_QUALITY = 90
"""Where there is no source."""
SPEED = 6
MOST_HELD = 1_500_000_000
"""Bytes of pixels that the pictures of a HEIC may have together."""
REPEATED = re.compile(rb"elst.\x00\x00\x01", re.DOTALL)
"""Of an animation that starts again when it is over."""
OURS = (b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip", b"idat", b"styp")
"""Boxes that the writers make, or that hold what only they know the place of."""
FILM = re.compile(rb"mpvd.{4}ftyp", re.DOTALL)
"""How the box of a motion photo's film begins."""
COLOURS = re.compile(rb"colrnclx(.{4})(..)", re.DOTALL)
"""Where such a file says what its colours are: primaries and transfer, and the matrix (ITU-T H.273)."""
ITEM = re.compile(rb"infe[\x02\x03].{7}(.{4})", re.DOTALL)
"""Where it names the kind of one of its items; those of more than 65535 are not told."""
DEEP = {"RGB;16": 3, "RGBA;16": 4}
"""Channels of what more than 8 bit are read from, in the library's names."""
LIGHT = (
    "content_light_level",
    "mastering_display_colour_volume",
    "ambient_viewing_environment",
    "nominal_diffuse_white_luminance",
    "pixel_aspect_ratio",
)
"""What a HEIC says of HDR screens, and of its pixels' shape."""

pillow_heif.register_heif_opener()


def _kept(image: Image.Image, data: bytes) -> dict[str, Any]:
    found = {"xmp": image.info["xmp"]} if image.info.get("xmp") else {}
    found["boxes"] = _boxes_beside(data)
    colours = COLOURS.search(data)
    return {**found, "bits": bits_a_pixel(image, data)} | ({"colours": colours[1]} if colours else {})


def _boxes_beside(data: bytes) -> bytes:
    """Such as the film of a motion photo."""
    return b"".join(box for kind, box in boxes(data) if kind not in OURS and len(box) > 8)


def _avif_kept(image: Image.Image, data: bytes) -> dict[str, Any]:
    grey, across, down = (bool(_avif_flags(data) & flag) for flag in (0x10, 0x08, 0x04))
    sampling = "4:0:0" if grey else "4:2:0" if across and down else "4:2:2" if across else "4:4:4"
    return {**_kept(image, data), "subsampling": sampling, "bit_depth": _avif_bits(data)}


def _avif_flags(data: bytes) -> int:
    """Of the first codec's settings (av1C, AV1 in ISOBMFF 2.3)."""
    place = data.find(b"av1C")
    return data[place + 6] if 0 <= place < len(data) - 6 else 0x0C


def _avif_bits(data: bytes) -> int:
    """A channel."""
    flags = _avif_flags(data)
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10


def _is_lossless(image: Image.Image, data: bytes) -> bool:
    """Whether colours are coded as they are, which is done for no other reason (matrix 0, ITU-T H.273)."""
    colours = COLOURS.search(data)
    return colours is not None and colours[2] == b"\0\0"


def _avif_lost(image: Image.Image, data: bytes) -> tuple[str, ...]:
    found = _items_lost(data)
    if _is_lossless(image, data):
        found.append("its coding without loss: levels may differ by 2")
    if _avif_bits(data) > 8 and _deep_avif_read(image, data) is None:
        found.append(
            f"its {_avif_bits(data)} bit, made 8: beside EXIF, XMP or a profile no more can be written"
        )
    return tuple(found)


def _items_lost(data: bytes) -> list[str]:
    found = (
        ["not restored: the film of the motion photo, which is kept as it was"] if FILM.search(data) else []
    )
    if b"tmap" in ITEM.findall(data):
        found.append("its gain map, and so its brighter look on HDR screens")
    return found


def _avif_options(picture: Picture, quality: int | None) -> dict[str, Any]:
    options = {name: value for name, value in picture.kept.items() if name == "xmp"}
    coding = {"speed": SPEED, "max_threads": 1, "subsampling": picture.kept.get("subsampling", "4:2:0")}
    if picture.lossless and "bits" in picture.kept:
        return {**options, **coding, "quality": 100, "subsampling": "4:4:4"}
    if quality is None and "bits" in picture.kept:
        quality = quality_of(picture.pixels, picture.kept["bits"], coded_size("AVIF", **coding))
    return {**options, **coding, "quality": quality or AVIF_QUALITY}


def _completed(data: bytes, picture: Picture) -> bytes:
    """With the primaries and the transfer that the source names, such as those of HDR, and its boxes."""
    colours = picture.kept.get("colours")
    data = COLOURS.sub(lambda found: b"colrnclx" + colours + found[2], data) if colours else data
    return data + picture.kept.get("boxes", b"")


def _deep_avif_read(image: Image.Image, data: bytes) -> Samples | None:
    """By OpenCV, which knows pixels alone."""
    bits = _avif_bits(data)
    if (
        bits == 8
        or has_more_frames(image)
        or any(image.info.get(name) for name in ("exif", "xmp", "icc_profile"))
    ):
        return None
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if read is None or read.dtype != np.uint16 or read.ndim != 3:
        return None
    return _all_of_16(read[..., [2, 1, 0, 3][: read.shape[2]]], bits)


def _all_of_16(samples: Samples, bits: int) -> Samples:
    return np.ascontiguousarray((samples.astype(np.uint32) * 65535 // ((1 << bits) - 1)).astype(np.uint16))


def _deep_avif(picture: Picture, quality: int | None) -> bytes:
    planes = [picture.pixels[..., ::-1]] + ([] if picture.alpha is None else [picture.alpha[..., None]])
    bits = picture.kept.get("bit_depth", 10)
    levels = (np.concatenate(planes, axis=2).astype(np.uint32) * ((1 << bits) - 1) + 32767) // 65535
    chosen = _avif_options(picture, quality)["quality"]
    coding = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, chosen, cv2.IMWRITE_AVIF_SPEED, SPEED]
    written, data = cv2.imencode(".avif", levels.astype(np.uint16), coding)
    if not written:
        raise PictureError(f"OpenCV could not write it as AVIF of {bits} bit")
    return data.tobytes()


def _heic_kept(image: Image.Image, data: bytes) -> dict[str, Any]:
    found = {name: image.info[name] for name in ("xmp", "chroma", "metadata", *LIGHT) if image.info.get(name)}
    if image.info.get("nclx_profile"):
        found["nclx_profile"] = image.info["nclx_profile"]
    if image.info.get("thumbnails"):
        found["thumbnails"] = [max(size, 0) for size in image.info["thumbnails"]]
    if image.info.get("tiling"):
        found["tile_size"] = image.info["tiling"]["tile_width"]
    found["bit_depth"] = image.info.get("bit_depth", 8)
    found["boxes"] = _boxes_beside(data)
    return {**found, "bits": bits_a_pixel(image, data) / getattr(image, "n_frames", 1)}


def _heic_lost(image: Image.Image, data: bytes) -> tuple[str, ...]:
    found = _items_lost(data)
    if any(kind == b"moov" for kind, _ in boxes(data)):
        found.append("its sequence of pictures in time")
    if image.info.get("depth_images"):
        found.append("its depth map")
    if image.info.get("aux"):
        found.append(f"pictures beside it, such as its gain map: {', '.join(sorted(image.info['aux']))}")
    if image.info.get("bit_depth", 8) > 8 and _deep_heic_read(image, data) is None:
        found.append(f"its {image.info['bit_depth']} bit, made 8")
    if image.info.get("heif"):
        found.append("the matrices of its camera")
    return tuple(found)


def _heic_options(picture: Picture, quality: int | None) -> dict[str, Any]:
    options = {
        name: value for name, value in picture.kept.items() if name not in ("bits", "bit_depth", "boxes")
    }
    if picture.lossless and "bits" in picture.kept:
        return {**options, "quality": -1, "chroma": 444}
    if quality is None and "bits" in picture.kept:
        size = coded_size("HEIF", **{k: v for k, v in options.items() if k == "chroma"})
        quality = quality_of(picture.pixels, picture.kept["bits"], size)
    return {**options, "quality": quality or HEIC_QUALITY}


def _deep_heic_read(image: Image.Image, data: bytes) -> Samples | None:
    if image.info.get("bit_depth", 8) == 8:
        return None
    opened = pillow_heif.open_heif(data, convert_hdr_to_8bit=False)[image.tell()]
    if opened.mode not in DEEP:
        return None
    samples = np.asarray(opened)[:, : opened.size[0], : DEEP[opened.mode]]
    bits = int(str(opened.info["bit_depth"]))
    return _all_of_16(samples >> (16 - bits), bits)


def _deep_heic(picture: Picture, quality: int | None) -> bytes:
    planes = [picture.pixels] + ([] if picture.alpha is None else [picture.alpha[..., None]])
    told = {"exif": picture.exif, "icc_profile": picture.icc_profile}
    options = _heic_options(picture, quality) | {name: value for name, value in told.items() if value}
    stream = io.BytesIO()
    height, width = picture.pixels.shape[:2]
    pillow_heif.encode(
        "RGB;16" if picture.alpha is None else "RGBA;16",
        (width, height),
        np.concatenate(planes, axis=2).tobytes(),
        stream,
        bit_depth=min(picture.kept.get("bit_depth", 10), 12),
        **options,
    )
    return stream.getvalue()


class _Streamed(Image.Image):
    """Frames that Pillow takes one after another as those of an opened file, without holding them."""

    def __init__(self, frames: Iterator[Image.Image]) -> None:
        super().__init__()
        self._frames, self._place, self.is_animated = frames, -1, True
        self.seek(0)

    def seek(self, frame: int) -> None:
        """On to the next one; there is no way back. Raises EOFError after the last."""
        if frame <= self._place:
            return
        shown = next(self._frames, None)
        if shown is None:
            raise EOFError
        self.im, self._mode, self._size, self._place = shown.im, shown.mode, shown.size, frame

    def tell(self) -> int:
        """The number of this one."""
        return self._place


def _avif_animated(
    coded: Iterator[Coded], first: Picture, image: Image.Image, source: bytes, target: IO[bytes]
) -> tuple[str, ...]:
    frames = _Timed(coded)
    streamed = _Streamed(iter(frames))
    told = {"exif": first.exif, "icc_profile": first.icc_profile, "xmp": first.kept.get("xmp")}
    options = {name: value for name, value in told.items() if value} | {"duration": frames.shown}
    written = io.BytesIO()
    options |= {"quality": frames.quality or AVIF_QUALITY, "speed": SPEED, "max_threads": 1}
    streamed.save(written, "AVIF", save_all=True, **options)
    target.write(_completed(written.getvalue(), first))
    return (
        () if REPEATED.search(source) else ("not kept: that it is shown once; it is shown again and again",)
    )


class _Timed:
    """Frames, and what is told of those that were taken so far."""

    def __init__(self, coded: Iterator[Coded]) -> None:
        self.coded = coded
        self.shown: list[int] = []
        self.quality: int | None = None

    def __iter__(self) -> Iterator[Image.Image]:
        for frame in self.coded:
            self.shown.append(round(frame.milliseconds))
            self.quality = frame.quality
            image = Image.open(io.BytesIO(frame.data), formats=["PNG"])
            image.load()
            yield image


def _heic_pages(
    coded: Iterator[Coded], first: Picture, image: Image.Image, source: bytes, target: IO[bytes]
) -> tuple[str, ...]:
    """Held together until they are coded, which the library does at once."""
    written, held, quality = pillow_heif.HeifFile(), 0, None
    for number, page in enumerate(coded):
        image.seek(number)
        samples = _samples(page.data)
        held += samples.nbytes
        if held > MOST_HELD:
            raise PictureError(f"a HEIC of several pictures with over {MOST_HELD:,} bytes of pixels")
        kept = _heic_kept(image, source)
        like = Picture(samples[..., :3], "HEIF", kept=kept)
        quality = quality or _heic_options(like, page.quality)["quality"]
        _add_page(written, samples, image, kept)
    written.save(target, quality=quality, primary_index=_primary(image))
    target.write(_boxes_beside(source))
    return ("not kept: pictures in which nothing was found as they were; a HEIC's are coded all together",)


def _samples(data: bytes) -> Samples:
    """[H, W, 3 or 4] of a PNG."""
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert read is not None
    return np.ascontiguousarray(read[..., [2, 1, 0, 3][: read.shape[2]]])


def _primary(image: Image.Image) -> int:
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        if image.info.get("primary"):
            return number
    return 0


def _add_page(
    written: pillow_heif.HeifFile, samples: Samples, image: Image.Image, kept: dict[str, Any]
) -> None:
    mode = {3: "RGB", 4: "RGBA"}[samples.shape[2]] + (";16" if samples.dtype == np.uint16 else "")
    page = written.add_frombytes(mode, (samples.shape[1], samples.shape[0]), samples.tobytes())
    told = {name: image.info[name] for name in ("exif", "icc_profile") if image.info.get(name)}
    page.info.update({name: value for name, value in (kept | told).items() if name not in ("bits", "boxes")})


AVIF = PictureFormat(
    "AVIF",
    frozenset({".avif", ".avifs"}),
    _avif_options,
    _avif_kept,
    _avif_lost,
    _completed,
    alpha=True,
    modes=frozenset({"L"}),
    deep=_deep_avif,
    deep_read=_deep_avif_read,
    lossless=_is_lossless,
    several=Several(_avif_animated, footage=True, held_as="PNG"),
)
HEIC = PictureFormat(
    "HEIF",
    frozenset({".heic", ".heif", ".hif"}),
    _heic_options,
    _heic_kept,
    _heic_lost,
    lambda data, picture: data + picture.kept.get("boxes", b""),
    alpha=True,
    deep=_deep_heic,
    deep_read=_deep_heic_read,
    lossless=_is_lossless,
    upright=True,
    several=Several(_heic_pages, footage=False, held_as="PNG"),
)
