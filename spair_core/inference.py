"""Pictures through the network: uint8 in, uint8 and mask out, any size, in tiles where large."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spair_core.network import Spair

OVERLAP = 64
"""Pixels that neighbouring tiles share; there their results fade into one another."""


@dataclass(frozen=True)
class Restored:
    """`pixels` uint8 [B, H, W, 3] and the predicted `mask` bool [B, H, W] (True = degraded)."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]


@torch.inference_mode()
def restore(model: Spair, pixels: NDArray[np.uint8], *, tile: int = 1024) -> Restored:
    """Restore uint8 pictures [B, H, W, 3] of one size, on the model's device.

    Pictures with a side over `tile` go through in overlapping tiles, so that memory is bounded.
    Raises ValueError for another shape or dtype.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
        raise ValueError(f"pictures must be uint8 [B, H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
    if tile < 2 * OVERLAP:
        raise ValueError(f"tile must be at least {2 * OVERLAP} pixels, not {tile}")
    device = next(model.parameters()).device
    pictures = torch.tensor(pixels, device=device).permute(0, 3, 1, 2).float() / 255
    restored, mask = _tiled(model, pictures, tile)
    quantized = (restored.clamp(0, 1) * 255).round().to(torch.uint8)
    return Restored(quantized.permute(0, 2, 3, 1).cpu().numpy(), mask[:, 0].cpu().numpy())


def _tiled(model: Spair, pictures: Tensor, tile: int) -> tuple[Tensor, Tensor]:
    height, width = pictures.shape[-2:]
    if height <= tile and width <= tile:
        output = model(pictures)
        return output.restored, output.mask
    total = torch.zeros_like(pictures)
    weight = pictures.new_zeros(1, 1, height, width)
    mask = torch.zeros_like(pictures[:, :1], dtype=torch.bool)
    for top, bottom in spans(height, tile):
        for left, right in spans(width, tile):
            output = model(pictures[..., top:bottom, left:right])
            fade = _fade(bottom - top, pictures)[:, None] * _fade(right - left, pictures)[None]
            total[..., top:bottom, left:right] += output.restored * fade
            weight[..., top:bottom, left:right] += fade
            mask[..., top:bottom, left:right] |= output.mask
    return total / weight, mask


def spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Equal tiles over [0, length), each at most `tile` long, neighbours sharing at least OVERLAP."""
    if length <= tile:
        return [(0, length)]
    count = -(-(length - OVERLAP) // (tile - OVERLAP))
    starts = [round(i * (length - tile) / (count - 1)) for i in range(count)]
    return [(start, start + tile) for start in starts]


def _fade(length: int, like: Tensor) -> Tensor:
    # Rises over the overlap and never vanishes: a border pixel has no other tile to draw on.
    ramp = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
    return torch.minimum(ramp, ramp.flip(0)).clamp(max=OVERLAP) / OVERLAP
