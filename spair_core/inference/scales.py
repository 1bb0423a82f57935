"""Large pictures at several scales: what is large in them is found where it is small.

The networks learn from pictures of some 500 pixels, whose streaks are a few pixels wide. In the same scene at
twice the side they are twice as wide, and a network that has never seen such hardly finds them. So a large
picture is restored at half its sides as well (and so on), and each pixel gets the larger of the corrections.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 320
"""Pixels that the shorter side has at least at the coarsest scale."""
AROUND = 5
"""Pixels a side over which corrections are held against one another."""

Restore = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""Pictures [B, 3, H, W] and their references -> the restored ones, and their masks bool [B, 1, H, W]."""


def over_scales(once: Restore, pictures: Tensor, references: Tensor | None) -> tuple[Tensor, Tensor]:
    """What `once` gives at the pictures' own scale, and of coarser ones what they correct more."""
    restored, mask = once(pictures, references)
    if min(pictures.shape[-2:]) < 2 * SMALLEST:
        return restored, mask
    small = _halved(pictures)
    coarse, found = over_scales(once, small, None if references is None else _halved(references))
    correction = F.interpolate(coarse - small, pictures.shape[-2:], mode="bicubic", align_corners=False)
    larger = _strength(correction) > _strength(restored - pictures)
    found = F.interpolate(found.float(), pictures.shape[-2:], mode="nearest") > 0
    return torch.where(larger, pictures + correction, restored), mask | found


def _halved(pictures: Tensor) -> Tensor:
    height, width = pictures.shape[-2:]
    return F.interpolate(pictures, (-(-height // 2), -(-width // 2)), mode="area")


def _strength(correction: Tensor) -> Tensor:
    """[B, 1, H, W]"""
    around = F.avg_pool2d(correction, AROUND, stride=1, padding=AROUND // 2)
    return around.abs().amax(1, keepdim=True)
