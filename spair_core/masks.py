"""Masks of degraded pixels, from a pair of pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.05
"""Default share of the range over which a difference counts as degradation."""


def mask_from_pair(
    degraded: NDArray[np.uint8], clean: NDArray[np.uint8], threshold: float = THRESHOLD
) -> NDArray[np.bool_]:
    """bool [H, W] from uint8 [H, W, 3] pictures: max over RGB of |degraded - clean| / 255 > threshold.

    Raises ValueError where the sizes differ.
    """
    if degraded.shape != clean.shape:
        raise ValueError(f"the pictures of a pair differ in size: {degraded.shape[:2]} and {clean.shape[:2]}")
    difference = np.maximum(degraded, clean) - np.minimum(degraded, clean)
    return np.asarray(difference.max(axis=2) > threshold * 255)
