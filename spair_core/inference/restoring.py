"""Pictures through the network: levels in, levels and mask out, any size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from spair_core.gpu import brought_back, tensor_of
from spair_core.inference.evenness import evened
from spair_core.inference.scales import over_scales
from spair_core.inference.settings import MIN_DEGRADED, TILE, check_tile
from spair_core.inference.tiles import in_tiles
from spair_core.network import Spair

NEAR = 4
"""What is further than so many pixels (of the scale at which it was found) from the mask comes back bit for
bit: the networks' corrections there are below what training could tell from nothing."""
UNSEEN = 2 / 255
"""A change that no one sees."""
PLACES = 8
"""A picture has so many places in height and in width, as to where degraded pixels lie in it."""
SPREAD = 0.105
"""Share of its places from which what was found in a picture is spread: faint rain lies in more, what is
taken for rain where there is none (bars of windows) in fewer."""


@dataclass(frozen=True)
class Restored:
    """`pixels` [B, H, W, 3], of the type that went in, and the `mask` bool [B, H, W] (True = degraded).

    A picture in which too little was found to touch it has an empty mask, and its own pixels.
    """

    pixels: NDArray[Any]
    mask: NDArray[np.bool_]


@torch.inference_mode()
def restore(
    model: Spair,
    pixels: NDArray[Any],
    *,
    references: NDArray[Any] | None = None,
    tile: int = TILE,
    min_degraded: float = MIN_DEGRADED,
) -> Restored:
    """Restore pictures [B, H, W, 3] of one size, uint8 or of 16 bit (uint16), on the model's device.

    `references` [B, H, W, 6] are those of frames (`spair_core.footage`). Pictures with a side over `tile` go
    through in overlapping tiles, so that memory is bounded; where the model `scales`, large ones are restored
    more coarsely as well, and what was found in even surroundings is made as even. A picture of which a
    smaller share than `min_degraded` is degraded (than a third of it, where that is spread over the picture
    as rain is) comes back as it is. Raises ValueError for another shape or dtype, FloatingPointError where
    the network gives values that are no numbers.
    """
    _check(pixels, 3)
    if references is not None:
        _check(references, 6)
    device = next(model.parameters()).device
    beside = None if references is None else shares(references, device)
    result = levels(model, shares(pixels, device), beside, tile, min_degraded, pixels.dtype)
    return gathered([result], device, pixels.dtype)


def levels(
    model: Spair,
    pictures: Tensor,
    beside: Tensor | None,
    tile: int,
    min_degraded: float,
    dtype: np.dtype[Any],
) -> tuple[Tensor, Tensor, Tensor]:
    """On the device: restored levels [B, H, W, 3], the mask bool [B, H, W], and whether all is finite."""
    check_tile(tile)
    finite = []

    def once(pictures: Tensor, beside: Tensor | None) -> tuple[Tensor, Tensor]:
        output, found = in_tiles(model, pictures, beside, tile)
        finite.append(torch.isfinite(output).all())
        return harmless(pictures, output, found, min_degraded)

    if model.scales:  # rain and drops: what they hide mostly looks like what is around it
        restored, mask = over_scales(once, pictures, beside)
        restored = evened(restored, mask)
    else:
        restored, mask = once(pictures, beside)
    # torch has few operations on uint16: wider on the way.
    levels = (restored.clamp(0, 1) * np.iinfo(dtype).max).round()
    quantized = levels.to(torch.uint8 if dtype == np.uint8 else torch.int32).permute(0, 2, 3, 1)
    return quantized, mask[:, 0], torch.stack(finite).all()


def gathered(
    results: Iterable[tuple[Tensor, Tensor, Tensor]], device: torch.device, dtype: np.dtype[Any]
) -> Restored:
    """The results on the host, one after another."""
    pieces = []
    for pixels, mask, finite in brought_back(results, device):
        if not finite:
            raise FloatingPointError(
                "the network's output is not finite: its weights do not fit, or are damaged"
            )
        pieces.append((pixels.astype(dtype, copy=False), mask))
    pixels, mask = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return Restored(pixels, mask)


def harmless(
    pictures: Tensor, restored: Tensor, mask: Tensor, min_degraded: float = MIN_DEGRADED
) -> tuple[Tensor, Tensor]:
    """The restored pictures [B, 3, H, W] in [0, 1] and their masks, without what had better be left alone."""
    changed = mask & ((restored - pictures).abs().amax(1, keepdim=True) > UNSEEN)
    mask = mask & _enough(changed.float(), min_degraded)
    near = F.max_pool2d(mask.float(), 2 * NEAR + 1, stride=1, padding=NEAR) > 0
    return torch.where(near, restored, pictures), mask


def _enough(changed: Tensor, min_degraded: float) -> Tensor:
    """Whether so much [B, 1, H, W] (0 or 1) is worth touching a picture, bool [B, 1, 1, 1].

    Where it is spread as rain is, a third of `min_degraded` is. The spread is the participation ratio of the
    places: 1 where all hold as much, 1 / PLACES**2 where one holds all.
    """
    share = changed.mean((1, 2, 3), keepdim=True)
    places = F.adaptive_avg_pool2d(changed, PLACES)
    even = places.square().mean((1, 2, 3), keepdim=True)
    spread = places.mean((1, 2, 3), keepdim=True).square() >= SPREAD * even
    return share >= torch.where(spread, min_degraded / 3, min_degraded).clamp(min=1e-12)


def _check(pixels: NDArray[Any], channels: int) -> None:
    known = pixels.dtype in (np.uint8, np.uint16)
    if not known or pixels.ndim != 4 or pixels.shape[3] != channels or 0 in pixels.shape:
        name = "pictures" if channels == 3 else "references"
        raise ValueError(
            f"{name} must be uint8 or uint16 [B, H, W, {channels}], not {pixels.dtype} {list(pixels.shape)}"
        )


def shares(pixels: NDArray[Any], device: torch.device) -> Tensor:
    """Pictures [B, H, W, C] as shares of their range [B, C, H, W] on the device."""
    return tensor_of(pixels, device) / np.iinfo(pixels.dtype).max
