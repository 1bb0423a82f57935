"""Restored places in even surroundings become as even as these.

Where a drop or a streak lay before the sky or the road, the network's guess leaves a stain that the eye
finds at once, though all around it is one colour. So what lies around a place is carried into it (pull-push
interpolation: Gortler et al., The Lumigraph, SIGGRAPH 1996, section 3.4), its squares as well. Where their
spread is small the guess is brought to their mean, but for what is far from it: that is something there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RIM = 1
"""Pixels around the mask that are evened as well: what was found is a little narrower than what is there."""
RING = 2
"""Width in pixels of what around these is looked at."""
EVEN = 3.5 / 255
"""Standard deviation of the surroundings at which half of a stain is taken away."""
STAIN = 48 / 255
"""Difference from the surroundings from which on what is seen is no stain: it stays as it is."""
FILLED = 0.25
"""Share of a coarser pixel that must be known for it to be known."""


def evened(restored: Tensor, mask: Tensor) -> Tensor:
    """Restored pictures [B, 3, H, W] in [0, 1], evened in and beside their masks bool [B, 1, H, W]."""
    if mask.device.type == "cpu" and not mask.any():  # of a GPU one would have to wait for this
        return restored
    found = mask.to(restored.dtype)
    inside = _grown(found, RIM)
    known = _grown(found, RIM + RING) - inside
    middle = restored.mean((2, 3), keepdim=True)
    around = restored - middle  # squares of less than one half: float32 keeps their differences
    sums = torch.cat([_halved(known * around), _halved(known * around.square())], 1)
    filled = _pulled(*_means(sums, _halved(known)))
    mean, square = _doubled(filled, found.shape[-2:]).chunk(2, 1)
    spread = (square - mean.square()).clamp(min=0).mean(1, keepdim=True)
    stain = mean - around
    still = (1 - (stain / STAIN).square()).clamp(min=0).square()
    change = stain * still / (1 + (spread / EVEN**2).square())
    return torch.where(inside > 0, restored + change, restored)


def _pulled(values: Tensor, known: Tensor) -> Tensor:
    """The values [B, C, h, w] where they are known [B, 1, h, w] (0 to 1); elsewhere what is known around."""
    if max(values.shape[-2:]) == 1:
        mean, square = values.chunk(2, 1)
        return torch.cat([known * mean, torch.where(known > 0, square, 1)], 1)  # nothing known: nothing even
    coarser = _pulled(*_means(_halved(known * values), _halved(known)))
    return known * values + (1 - known) * _doubled(coarser, values.shape[-2:])


def _means(sums: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Of pixels of which a share was known: the mean of that, and how far they are known themselves."""
    return sums / share.clamp(min=1e-6), (share / FILLED).clamp(max=1)


def _grown(mask: Tensor, by: int) -> Tensor:
    return F.max_pool2d(mask, 2 * by + 1, stride=1, padding=by)


def _halved(values: Tensor) -> Tensor:
    height, width = values.shape[-2:]
    return F.avg_pool2d(F.pad(values, (0, width % 2, 0, height % 2)), 2)


def _doubled(values: Tensor, size: torch.Size) -> Tensor:
    doubled = F.interpolate(values, scale_factor=2, mode="bilinear", align_corners=False)
    return doubled[..., : size[0], : size[1]]
