"""Footage to learn from: pieces of clips, and photographs before which a simulated camera moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spair_core.footage.windows import Window

Pixels = NDArray[np.uint8]

BEATS = (-15, -10, -5, 0, 5, 10, 15)
NEIGHBOURS = (-2, -1, 1, 2)
TIMES = tuple(sorted({*BEATS, *NEIGHBOURS}))
"""Frames, at 30 a second, that the references of frame 0 look at (`Reach`'s defaults)."""


@dataclass(frozen=True)
class CameraConfig:
    """How the camera moves; all but `standing` are standard deviations, of motion a frame."""

    glide: float = 3.0
    """Pixels."""
    zoom: float = 0.006
    """Share by which the picture grows or shrinks."""
    turn: float = 0.3
    """Degrees."""
    shake: float = 0.4
    """Pixels, drawn anew each frame."""
    standing: float = 0.12
    """Share of cameras that only shake, and an eighth as much."""


def moved(photo: Pixels, size: int, rng: np.random.Generator, config: CameraConfig | None = None) -> Window:
    """The window of one frame [size, size, 3] of a camera that moves before a photograph uint8 [H, W, 3].

    Photographs are shown at 0.6 to 1.1 of their size (larger ones smaller, ones too small larger) and are
    continued by reflection.
    """
    config = config or CameraConfig()
    height, width = photo.shape[:2]
    large = min(height, width) > 600
    scale = max(rng.uniform(0.4, 0.9) if large else rng.uniform(0.6, 1.1), 1.05 * size / min(height, width))
    half = size / 2 / scale
    centre = rng.uniform(half, max(width - half, half + 1)), rng.uniform(half, max(height - half, half + 1))
    stands = rng.random() < config.standing
    pace = 0.0 if stands else 1.0
    glide = rng.normal(0, config.glide, 2) * pace
    zoom, turn = rng.normal(0, config.zoom) * pace, rng.normal(0, config.turn) * pace
    shake = config.shake * (1 / 8 if stands else 1)
    frames = []
    for time in TIMES:
        seen = scale * (1 + zoom) ** time
        matrix = cv2.getRotationMatrix2D(centre, turn * time, seen)
        place = size / 2 - np.array(centre) + glide * time + rng.normal(0, shake, 2)
        matrix = matrix + np.column_stack([np.zeros((2, 2)), place])
        finer = cv2.INTER_AREA if seen < 0.7 else cv2.INTER_LINEAR
        frames.append(cv2.warpAffine(photo, matrix, (size, size), flags=finer, borderMode=cv2.BORDER_REFLECT))
    return _window_of(frames)


def filmed_window(frames: Sequence[Pixels], rate: float, size: int, rng: np.random.Generator) -> Window:
    """The window of one frame [size, size, 3] of a clip of `rate` frames uint8 [H, W, 3] a second, somewhere
    in it: a square piece, as it is or (most) made smaller; of one drive in four, at twice its speed.

    Clips that are too small are continued by reflection, and at their ends by their first or last frame.
    """
    height, width = frames[0].shape[:2]
    speed = (rate / 30) * (2 if rng.random() < 0.25 else 1)
    steps = [round(time * speed) for time in TIMES]
    middle = int(rng.integers(-steps[0], max(len(frames) - steps[-1], 1 - steps[0])))
    most = max(min(height, width), size)
    side = int(rng.integers(size, most + 1)) if rng.random() < 0.7 else size
    top, left = (int(rng.integers(0, max(length - side, 0) + 1)) for length in (height, width))
    if rng.random() < 0.5:  # more of the road ahead, less of the sky
        top = max(top, min(int(0.35 * height), max(height - side, 0)))
    pieces = []
    for step in steps:
        frame = frames[min(max(middle + step, 0), len(frames) - 1)]
        piece = cut(frame, top, left, side)
        pieces.append(
            piece if side == size else cv2.resize(piece, (size, size), interpolation=cv2.INTER_AREA)
        )
    return _window_of(pieces)


def cut(pixels: NDArray[Any], top: int, left: int, side: int) -> NDArray[Any]:
    """The piece [side, side, ...] of a picture from there on, continued by reflection where it ends."""
    piece = pixels[top : top + side, left : left + side]
    missing = [(0, side - piece.shape[0]), (0, side - piece.shape[1])] + [(0, 0)] * (pixels.ndim - 2)
    return np.pad(piece, missing, mode="symmetric") if piece.shape[:2] != (side, side) else piece


def _window_of(frames: Sequence[Any]) -> Window:
    """Of the middle of frames at `TIMES`."""
    here = TIMES.index(0)
    return Window(
        np.stack(frames).astype(np.uint8, copy=False),
        range(here, here + 1),
        (tuple(TIMES.index(time) for time in NEIGHBOURS),),
        (tuple(TIMES.index(time) for time in BEATS),),
    )
