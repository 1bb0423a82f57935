"""Photographs as footage: a simulated camera glides, turns and shakes before them."""

from __future__ import annotations

from dataclasses import dataclass

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
    here = TIMES.index(0)
    return Window(
        np.stack(frames).astype(np.uint8, copy=False),
        range(here, here + 1),
        (tuple(TIMES.index(time) for time in NEIGHBOURS),),
        (tuple(TIMES.index(time) for time in BEATS),),
    )
