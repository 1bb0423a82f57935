"""Masks of degraded pixels: from a pair of pictures, and at the networks' coarser levels."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

THRESHOLD = 0.05
"""Default share of the range over which a difference counts as degradation."""

COARSE_SHARE = 1 / 8
"""At 1/4 and 1/8 a cell is degraded if at least this share of its pixels is: taking the maximum
there as well would leave thin streaks with hardly a clean cell to draw on."""


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


def coarsen(mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """bool N x 1 x H x W (sides multiples of 8) -> the mask at 1, 1/2, 1/4 and 1/8."""
    share = mask.float()
    half = F.max_pool2d(share, 2) > 0
    quarter = F.avg_pool2d(share, 4) >= COARSE_SHARE
    eighth = F.avg_pool2d(share, 8) >= COARSE_SHARE
    return mask, half, quarter, eighth
