"""Pictures of any size, in overlapping tiles where they are large, so that memory is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from spair_core.inference.settings import OVERLAP
from spair_core.network import MULTIPLE, Spair, pad_to_multiple


def in_tiles(model: Spair, pictures: Tensor, references: Tensor | None, tile: int) -> tuple[Tensor, Tensor]:
    """Restored pictures [B, 3, H, W], not clamped, and their masks bool [B, 1, H, W], where trusted."""
    height, width = pictures.shape[-2:]
    if height <= tile and width <= tile:
        output = model(pictures, references=references)
        return output.restored, model.trusted(output.mask, output.sure)
    total = torch.zeros_like(pictures)
    weight = pictures.new_zeros(1, 1, height, width)
    mask = torch.zeros_like(pictures[:, :1], dtype=torch.bool)
    sure = torch.zeros_like(mask)
    factors = factors_of(model, pictures, references, tile)
    for top, bottom in spans(height, tile):
        for left, right in spans(width, tile):
            piece = (..., slice(top, bottom), slice(left, right))
            beside = None if references is None else references[piece]
            output = model(pictures[piece], references=beside, factors=factors)
            fade = _fade(bottom - top, pictures)[:, None] * _fade(right - left, pictures)[None]
            total[piece] += output.restored * fade
            weight[piece] += fade
            mask[piece] |= output.mask
            sure[piece] |= output.sure
    return total / weight, model.trusted(mask, sure)


def factors_of(model: Spair, pictures: Tensor, references: Tensor | None, tile: int) -> list[Tensor] | None:
    """Those of squeeze-and-excitation over whole pictures, each from statistics gathered over the tiles."""
    if not model.localizer.excite:
        return None
    stacked = model.stacked(pictures, references)
    factors: list[Tensor] = []
    for place in range(len(model.localizer.excite)):
        sums = []
        for piece, core in _cores(pictures.shape[-2], pictures.shape[-1], tile):
            seen = pad_to_multiple(stacked[piece]).to(model.dtype)
            sums.append(_sums(model.localizer.unexcited(seen, factors), piece, core))
        count, total, squares = (sum(parts) for parts in zip(*sums, strict=True))
        mean = total / count
        deviation = (squares / count - mean * mean).clamp(min=0).sqrt()
        factors.append(model.localizer.factors(place, mean.float(), deviation.float()))
    return factors


def _cores(height: int, width: int, tile: int) -> Iterator[tuple[Any, Any]]:
    """Tiles, and the part of each that no other has (in its own pixels): overlaps are halved."""
    for top, bottom, *rows in _halved(spans(height, tile)):
        for left, right, *columns in _halved(spans(width, tile)):
            yield (..., slice(top, bottom), slice(left, right)), (rows, columns)


def _halved(tiles: list[tuple[int, int]]) -> Iterator[tuple[int, int, int, int]]:
    edges = [0, *((a[1] + b[0]) // 2 for a, b in pairwise(tiles)), tiles[-1][1]]
    for (start, stop), (first, last) in zip(tiles, pairwise(edges), strict=True):
        yield start, stop, first - start, last - start


def _sums(features: Tensor, piece: Any, core: Any) -> tuple[int, Tensor, Tensor]:
    """Cells, sum and sum of squares (float64, N x C) of the features in a tile's core."""
    (top, bottom), (left, right) = core
    step = -(-(piece[1].stop - piece[1].start) // MULTIPLE) * MULTIPLE // features.shape[-2]
    own = features[..., top // step : -(-bottom // step), left // step : -(-right // step)].double()
    return own[0, 0].numel(), own.sum((2, 3)), own.square().sum((2, 3))


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
