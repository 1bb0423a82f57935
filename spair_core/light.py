"""Linear light: what adds up in front of a sensor adds up in it, and not in a picture's coded values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GAMMA = 2.2
"""Coded values are light to the power of 1 / GAMMA (as GoPro's blur was made, Nah et al. 2017)."""

Floats = NDArray[np.float32]

_LIGHT = ((np.arange(256) / 255) ** GAMMA).astype(np.float32)
# Over the square root of the light, which is nearly the coded value, a table is as fine in the dark as
# elsewhere, and so fine that coded values come back as they were.
_STEPS = 4095
_CODED = np.round(255 * (np.arange(_STEPS + 1) / _STEPS) ** (2 / GAMMA)).astype(np.uint8)


def linear(coded: NDArray[np.uint8]) -> Floats:
    """Light in [0, 1] of coded values, float32 of the same shape."""
    return np.asarray(_LIGHT[coded])


def coded(light: Floats) -> NDArray[np.uint8]:
    """Coded values, uint8 of the same shape, of light, which is clipped to [0, 1]."""
    root = np.sqrt(np.clip(light, 0, 1))
    return np.asarray(_CODED[(root * _STEPS + np.float32(0.5)).astype(np.uint16)])
