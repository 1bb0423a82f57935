"""Frames as FFmpeg has them, and as the networks were trained to see them: RGB, of 8 bits or (deep clips) 16.

The matrix is the one that the tags name, or that players assume. Chroma is repeated on the way in and
averaged on the way out, so that what nothing was found in comes back as it was, to a rounding.
"""

from __future__ import annotations

import zlib
from functools import cache
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipelines.media.video.clip import FULL, ClipFormat, depth_of

PQ = 16
HIGH_DEFINITION = 720
"""Lines from which players take colours without a tag for BT.709, below which for BT.601."""
BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)
WEIGHTS = {1: BT709, 4: (0.3, 0.11), 5: BT601, 6: BT601, 7: (0.212, 0.087), 9: BT2020, 10: BT2020}
"""Shares of red and blue in luma, by the matrix's number in ITU-T H.273."""
PRIMARIES_2020 = 9


class Colours:
    """Converts the frames of a clip."""

    def __init__(self, format: ClipFormat) -> None:
        self.format = format
        self.absolute = format.deep and format.colour.transfer == PQ
        self.dtype: Any = np.uint16 if format.deep else np.uint8
        self._there, self._back = VideoReformatter(), VideoReformatter()
        # Memory to work in: to ask for it anew for every frame takes longer than to fill it.
        self._chroma: list[Any] = [None, None]
        self._yuv: Any = None
        self._codes: Any = None

    def pixels(self, frame: av.VideoFrame, size: tuple[int, int]) -> NDArray[Any]:
        """[H, W, 3], or [H, W, 4] with alpha, uint8 or (of deep clips) uint16, at full range.

        A frame that is not of the `size` (width and height) is scaled to it.
        """
        name = self.format.pixels
        frame = self._there.reformat(frame, *size, format=name, threads=1)
        if is_yuv(name) or is_grey(name):
            pixels = self._from_planes([_plane(plane, name) for plane in frame.planes], depth_of(name))
        else:
            pixels = self._there.reformat(frame, format=self._packed(), threads=1).to_ndarray()
        return curved(pixels, as_seen()) if self.absolute else np.asarray(pixels)

    def _packed(self) -> str:
        alpha, deep = self.format.alpha, self.format.deep
        return ("rgba64le" if alpha else "rgb48le") if deep else ("rgba" if alpha else "rgb24")

    def _from_planes(self, planes: list[NDArray[Any]], depth: int) -> NDArray[Any]:
        luma = planes[0]
        if len(planes) < 3:
            grey = _levels(luma, depth, self.dtype)
            return np.asarray(cv2.merge([grey, grey, grey]))
        for k in (0, 1):
            self._chroma[k] = _repeated(planes[k + 1], luma.shape, self._chroma[k])
        chroma = [plane[: luma.shape[0], : luma.shape[1]] for plane in self._chroma]
        self._yuv = cv2.merge([luma, *chroma], dst=self._yuv)
        rgb = cv2.transform(self._yuv, _to_rgb(_weights(self.format), self._full, depth))
        if not self.format.alpha:
            return np.asarray(rgb)
        return np.dstack([rgb, _levels(planes[3], depth, self.dtype)])

    @property
    def _full(self) -> bool:
        return self.format.colour.range == FULL

    def frame(self, pixels: NDArray[Any], name: str) -> av.VideoFrame:
        """The frame of such pixels in a pixel format, without a time."""
        pixels = curved(pixels, as_coded()) if self.absolute else pixels
        if is_yuv(name) or is_grey(name):
            return self._of_planes(pixels, name)
        kinds = {(1, 3): "rgb24", (1, 4): "rgba", (2, 3): "rgb48le", (2, 4): "rgba64le"}
        kind = kinds[pixels.dtype.itemsize, pixels.shape[2]]
        packed = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=kind)
        return self._back.reformat(packed, format=name, threads=1)

    def _of_planes(self, pixels: NDArray[Any], name: str) -> av.VideoFrame:
        height, width = pixels.shape[:2]
        frame = av.VideoFrame(width, height, name)
        depth = depth_of(name)
        wide = pixels if pixels.dtype == np.uint16 or depth == 8 else pixels.astype(np.uint16) * 257
        bits = 8 * wide.dtype.itemsize
        if is_grey(name):
            codes = [cv2.transform(wide[..., :3], _to_grey(depth, bits))]
        else:
            matrix = _to_yuv(_weights(self.format), self._full, depth, bits)
            self._yuv = cv2.transform(np.ascontiguousarray(wide[..., :3]), matrix, dst=self._yuv)
            self._codes = cv2.split(self._yuv, mv=self._codes)
            codes = list(self._codes)
        if len(frame.planes) == 4:
            opaque = np.full((height, width), 2**bits - 1, wide.dtype)
            alpha = wide[..., 3] if wide.shape[2] == 4 else opaque
            codes.append(np.round(alpha * ((2**depth - 1) / (2**bits - 1))))
        for plane, code in zip(frame.planes, codes, strict=True):
            _plane(plane, name)[...] = _averaged(code, (plane.height, plane.width))
        return frame


def is_yuv(name: str) -> bool:
    """Whether a pixel format has luma and chroma, each a plane."""
    return name.startswith("yuv")


def is_grey(name: str) -> bool:
    """Whether it is luma alone."""
    return name.startswith("gray") and not name.startswith("grayf")


def _plane(plane: Any, name: str) -> NDArray[Any]:
    """[H, W], uint8 or uint16, in the frame's own memory."""
    dtype = np.dtype(np.uint8 if depth_of(name) == 8 else np.uint16)
    rows = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)
    return rows[: plane.height, : plane.width]


def _repeated(plane: NDArray[Any], shape: tuple[int, ...], dst: Any) -> NDArray[Any]:
    """Of at least that shape, into the memory given where it fits."""
    if plane.shape == shape:
        return plane
    down, across = (-(-whole // part) for whole, part in zip(shape, plane.shape, strict=True))
    size = plane.shape[1] * across, plane.shape[0] * down
    return np.asarray(cv2.resize(plane, size, dst=dst, interpolation=cv2.INTER_NEAREST))


def _averaged(plane: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    if plane.shape == shape:
        return plane
    down, across = (-(-whole // part) for whole, part in zip(plane.shape, shape, strict=True))
    below, beside = shape[0] * down - plane.shape[0], shape[1] * across - plane.shape[1]
    if below or beside:
        plane = cv2.copyMakeBorder(plane, 0, below, 0, beside, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(plane, shape[::-1], interpolation=cv2.INTER_AREA))


def _levels(codes: NDArray[Any], depth: int, dtype: Any) -> NDArray[Any]:
    """Codes of so many bits as levels of a type's whole range."""
    most = np.iinfo(dtype).max
    if 2**depth - 1 == most:
        return codes
    return np.round(codes * (most / (2**depth - 1))).astype(dtype)


def _weights(format: ClipFormat) -> tuple[float, float]:
    known = WEIGHTS.get(format.colour.matrix)
    if known is None and format.colour.primaries == PRIMARIES_2020:
        return BT2020
    return known or (BT709 if format.tall else BT601)


@cache
def _ideal(weights: tuple[float, float]) -> NDArray[np.float64]:
    """RGB in [0, 1] to luma in [0, 1] and chroma around 0, to a half."""
    red, blue = weights
    luma = np.array([red, 1 - red - blue, blue])
    of_blue = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
    of_red = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    return np.stack([luma, of_blue, of_red])


def _scale(full: bool, depth: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Codes that luma and chroma of 1 span, and where 0 stands."""
    if full:
        most = 2.0**depth - 1
        return np.array([most] * 3), np.array([0.0, 2.0 ** (depth - 1), 2.0 ** (depth - 1)])
    one = 2.0 ** (depth - 8)
    return one * np.array([219.0, 224.0, 224.0]), one * np.array([16.0, 128.0, 128.0])


@cache
def _to_yuv(weights: tuple[float, float], full: bool, depth: int, bits: int) -> NDArray[np.float64]:
    """[3, 4]: levels of so many bits -> codes."""
    span, zero = _scale(full, depth)
    return np.column_stack([_ideal(weights) * span[:, None] / (2.0**bits - 1), zero])


@cache
def _to_rgb(weights: tuple[float, float], full: bool, depth: int) -> NDArray[np.float64]:
    """[3, 4]: codes -> levels of 8 bits or, of more than 8, of 16."""
    span, zero = _scale(full, depth)
    inverse = np.linalg.inv(_ideal(weights)) / span * (2.0 ** (8 if depth == 8 else 16) - 1)
    return np.column_stack([inverse, -inverse @ zero])


@cache
def _to_grey(depth: int, bits: int) -> NDArray[np.float64]:
    return _ideal(BT709)[:1] * (2.0**depth - 1) / (2.0**bits - 1)


WHITE = 203.0
"""Candelas a square metre of what is plain white in PQ footage (ITU-R BT.2408)."""
WHITE_LEVEL = 0.8
"""Where the networks are shown it; what shines brighter shares the rest, as the logarithm has it."""
BRIGHTEST = 10000.0


@cache
def as_seen() -> NDArray[np.uint16]:
    """Levels of SMPTE ST 2084 (PQ) in 16 bits -> such as the networks were trained on.

    PQ spends its levels on candelas: plain white stands at 58 %, and what a camera without HDR would show in
    half its levels fills a third of them. Up to plain white this is a gamma of 2.2. Four photographs in
    synthetic rain gained 5.1 dB (rain-light, on Y) so, 5.1 in 8 bits, and 4.1 by PQ's levels as they are, by
    which clean ones were changed more. HLG was made to be watched as it is, and is left so.
    """
    code = (np.arange(65536) / 65535) ** (32 / 2523)
    linear = (np.maximum(code - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * code)) ** (16384 / 2610)
    light = BRIGHTEST / WHITE * linear
    dim = WHITE_LEVEL * np.minimum(light, 1) ** (1 / 2.2)
    bright = (1 - WHITE_LEVEL) * np.log(np.maximum(light, 1)) / np.log(BRIGHTEST / WHITE)
    return np.round(65535 * (dim + bright)).astype(np.uint16)


@cache
def as_coded() -> NDArray[np.uint16]:
    """The way back."""
    levels = np.interp(np.arange(65536), as_seen().astype(float), np.arange(65536))
    return np.round(levels).astype(np.uint16)


def curved(pixels: NDArray[Any], curve: NDArray[np.uint16]) -> NDArray[Any]:
    """The same [H, W, 3 or 4] with a curve on the colours."""
    colours = curve[pixels[..., :3]]
    return colours if pixels.shape[-1] == 3 else np.concatenate([colours, pixels[..., 3:]], axis=-1)


def packed_alpha(frames: list[NDArray[Any]]) -> bytes:
    """The alpha [H, W] of frames, small."""
    return zlib.compress(np.stack(frames).tobytes(), 1)


def unpacked_alpha(data: bytes, like: NDArray[Any]) -> NDArray[Any]:
    """[k, H, W, 1] of pixels [k, H, W, 3]."""
    return np.frombuffer(zlib.decompress(data), like.dtype).reshape(*like.shape[:3], 1)
