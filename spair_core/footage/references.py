"""The two references of a frame: what its neighbours show in each place, and what stands on the glass.

Streaks are in one frame and gone in the next, so the median of aligned neighbours is free of them; drops
stay on the glass while the scene moves, so the median over a second, not aligned, keeps just them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spair_core.footage.windows import Window

Pixels = NDArray[np.uint8]

FLOW_BLUR = 1.5
STREAK_SHARE = 60
"""Flow is measured on grey blurred by this sigma, after what is bright and narrower than this fraction of the
height has been taken away (an opening along the rows): rain must not lead it."""
FINEST = 1
"""The finest scale at which flow is measured, of half the frame's sides: at a quarter, which that preset has,
thin posts and lane markings that pass are lost."""
FLOW_SMALLEST = 16
"""Of frames with a shorter side there is no flow."""
FEWEST_BEATS = 3
"""Of fewer frames there is no median that the scene would melt from."""
EXPOSURE_STEP = 8
EXPOSURE_RANGE = (8, 247)
STEADY = 0.02
"""A frame that is brighter or darker by a smaller share has not been exposed otherwise."""


def references(window: Window) -> Iterator[Pixels]:
    """For each of the run's frames uint8 [H, W, 6]: the aligned reference and the fixed one, both RGB.

    `aligned` is the median of the frame and its neighbours, each brought onto it by dense optical flow (DIS,
    Kroeger et al. 2016); `fixed` that of the frames around it as the camera saw them. Changes of exposure are
    taken out. Where there is too little to see, a reference is the frame itself.
    """
    flow, fixed = _Flow(window, rainy=True), _Fixed(window.pixels)
    for place, neighbours, beats in zip(window.own, window.neighbours, window.beats, strict=True):
        yield np.concatenate([_aligned(flow, place, neighbours), fixed.behind(place, beats)], axis=2)


def aligned(window: Window) -> Iterator[NDArray[Any]]:
    """For each of a run's restored frames the aligned reference [H, W, 3] alone, of its type.

    There is no rain that could lead the flow, and nothing is taken away for it: markings must not be lost.
    """
    flow = _Flow(window, rainy=False)
    for place, neighbours in zip(window.own, window.neighbours, strict=True):
        yield _aligned(flow, place, neighbours)


def _aligned(flow: _Flow, place: int, neighbours: Sequence[int]) -> NDArray[Any]:
    frame = flow.pixels[place]
    if len(neighbours) < 2 or min(frame.shape[:2]) < FLOW_SMALLEST:  # of two there is no median
        return frame
    brought = [exposed_like(flow.brought(other, place), frame) for other in neighbours]
    return median([frame, *brought])


class _Flow:
    """Brings frames of a window onto one another."""

    def __init__(self, window: Window, *, rainy: bool) -> None:
        self.pixels, self.shown, self.rainy = window.pixels, window.shown.pixels, rainy
        self.grey: dict[int, Pixels] = {}
        self.flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self.flow.setFinestScale(FINEST)
        height, width = self.pixels.shape[1:3]
        self.streak = np.ones((1, max(5, height // STREAK_SHARE | 1)), np.uint8)
        self.rows, self.columns = np.mgrid[:height, :width].astype(np.float32)

    def brought(self, other: int, place: int) -> NDArray[Any]:
        """One frame as seen from where another was taken."""
        moved = self.flow.calc(self._grey(place), self._grey(other), None)  # type: ignore[call-overload]
        columns, rows = self.columns + moved[..., 0], self.rows + moved[..., 1]
        warped = cv2.remap(self.pixels[other], columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(warped)

    def _grey(self, place: int) -> Pixels:
        if place not in self.grey:
            grey = cv2.cvtColor(self.shown[place], cv2.COLOR_RGB2GRAY)
            if self.rainy:
                grey = cv2.GaussianBlur(
                    cv2.morphologyEx(grey, cv2.MORPH_OPEN, self.streak), (0, 0), FLOW_BLUR
                )
            self.grey[place] = np.asarray(grey, dtype=np.uint8)
        return self.grey[place]


class _Fixed:
    """Medians of frames as the camera saw them; consecutive frames mostly see the same ones."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.beats: Sequence[int] = ()
        self.median: Pixels | None = None

    def behind(self, place: int, beats: Sequence[int]) -> Pixels:
        """The fixed reference of a frame."""
        frame = self.pixels[place]
        if len(beats) < FEWEST_BEATS:
            return frame
        if self.median is None or beats != self.beats:
            middle = self.pixels[beats[len(beats) // 2]]
            self.median = median([exposed_like(self.pixels[beat], middle) for beat in beats])
            self.beats = beats
        return exposed_like(self.median, frame)


def exposed_like(picture: NDArray[Any], frame: NDArray[Any]) -> NDArray[Any]:
    """A picture brightened or darkened to the exposure of a frame of its size, both uint8 or both uint16."""
    most = np.iinfo(picture.dtype).max
    low, high = (edge * (most // 255) for edge in EXPOSURE_RANGE)
    a, b = (pixels[::EXPOSURE_STEP, ::EXPOSURE_STEP, 1].astype(np.float32) for pixels in (picture, frame))
    usable = (a > low) & (a < high) & (b > low) & (b < high)
    gain = float(np.median(b[usable] / a[usable])) if usable.any() else 1.0
    if abs(gain - 1) < STEADY:
        return picture
    if picture.dtype == np.uint8:
        return np.asarray(cv2.convertScaleAbs(picture, alpha=gain), dtype=np.uint8)
    return np.asarray(np.clip(np.rint(picture * np.float32(gain)), 0, most).astype(picture.dtype))


def median(pictures: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The median in each place of pictures of one size and type; of an even number, the middle two's mean.

    Sorts by exchanges of whole pictures, which is tens of times as fast as sorting in each place.
    """
    kept = [picture.copy() for picture in pictures]
    for last in range(len(kept) - 1, 0, -1):
        for place in range(last):
            smaller = np.minimum(kept[place], kept[place + 1])
            np.maximum(kept[place], kept[place + 1], out=kept[place + 1])
            kept[place] = smaller
    middle = len(kept) // 2
    if len(kept) % 2:
        return kept[middle]
    return np.asarray(cv2.addWeighted(kept[middle - 1], 0.5, kept[middle], 0.5, 0))
