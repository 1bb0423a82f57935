"""SFM on a CPU, forward and backward: two sets of cells, their statistics as products with the mask."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kernels.cpu.precision import LOW_PRECISION, summing


def sfm(features: Tensor, mask: Tensor, eps: float, max_ratio: float, fade: float) -> tuple[Tensor, Tensor]:
    """Features N x C x H x W -> modulated, and the statistics [6, N, C] that backward needs."""
    cells = _cells(features)
    both = _both_sets(mask, summing(cells.dtype))
    counts = both.sum(2).t()
    means = _sums(both, cells) / counts.t().clamp(min=1)[..., None]
    squares = torch.zeros_like(means)
    for at in _cell_ranges(cells):
        # Centred first, set by set: a difference of large squares would lose the variance.
        share = both[:, :, at]
        centred = torch.baddbmm(_wide(cells[:, at]), share.transpose(1, 2), means, alpha=-1)
        squares.baddbmm_(share, centred.square_())
    variances = squares.transpose(0, 1) / counts.clamp(min=1)[..., None]
    mu1, mu0 = means.unbind(1)
    sigma1, sigma0 = (variances + eps).sqrt()
    free = sigma0 / sigma1
    ratio = free.clamp(1 / max_ratio, max_ratio)
    weight = _fade_weight(counts, fade)
    gain, shift = weight * (ratio - 1), weight * (mu0 - ratio * mu1)
    out = cells.clone(memory_format=torch.contiguous_format)
    rows, active = out.view(-1, out.shape[2]), mask.flatten().nonzero()[:, 0]
    picture, degraded = active // cells.shape[1], _wide(rows.index_select(0, active))
    moved = gain.index_select(0, picture).add_(1).mul_(degraded).add_(shift.index_select(0, picture))
    rows.index_copy_(0, active, moved.to(rows.dtype))
    statistics = torch.stack([mu1, mu0, sigma1, sigma0, ratio, (ratio != free).to(ratio.dtype)])
    return _as_pictures(out, features), statistics


def sfm_backward(grad: Tensor, features: Tensor, mask: Tensor, statistics: Tensor, fade: float) -> Tensor:
    """The gradient of the features; that through a clamped ratio is zero."""
    cells, upstream = _wide(_cells(features)), _wide(_cells(grad))
    both = _both_sets(mask, cells.dtype)
    counts = both.sum(2).t()
    weight = _fade_weight(counts, fade)
    mu1, mu0, sigma1, sigma0, ratio, held = statistics
    total, along = torch.zeros_like(mu1)[:, None], torch.zeros_like(mu1)[:, None]
    for at in _cell_ranges(cells):
        total.baddbmm_(both[:, :1, at], upstream[:, at])
        along.baddbmm_(both[:, :1, at], upstream[:, at] * cells[:, at])
    total, along = weight * total[:, 0], weight * along[:, 0]
    grad_ratio = (1 - held) * (along - mu1 * total)
    slope1 = -grad_ratio * sigma0 / sigma1.square() / sigma1
    slope0 = grad_ratio / sigma1 / sigma0
    n1, n0 = counts.clamp(min=1)[..., None]
    scale = torch.stack([slope1 / n1, slope0 / n0], 1)
    offset = torch.stack([(-ratio * total - slope1 * mu1) / n1, (total - slope0 * mu0) / n0], 1)
    through = torch.stack([weight * (ratio - 1), torch.zeros_like(ratio)], 1)
    out = torch.empty_like(cells)
    for at in _cell_ranges(cells):
        share = both[:, :, at].transpose(1, 2)
        part = torch.baddbmm(upstream[:, at], share, offset)
        part.addcmul_(torch.bmm(share, scale), cells[:, at])
        out[:, at] = part.addcmul_(torch.bmm(share, through), upstream[:, at])
    return _as_pictures(out, features).to(grad.dtype)


def _cells(features: Tensor) -> Tensor:
    """N x C x H x W -> [N, H*W, C]."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def _wide(values: Tensor) -> Tensor:
    """Low precision widened to float32."""
    return values.to(summing(values.dtype))


def _sums(both: Tensor, cells: Tensor) -> Tensor:
    """[N, 2, C]: those of each set; low precision is widened part by part, not all of it at once."""
    if cells.dtype not in LOW_PRECISION:
        return torch.bmm(both, cells)
    sums = both.new_zeros(*both.shape[:2], cells.shape[2])
    for at in _cell_ranges(cells):
        sums.baddbmm_(both[:, :, at], _wide(cells[:, at]))
    return sums


def _as_pictures(cells: Tensor, like: Tensor) -> Tensor:
    n, channels, height, width = like.shape
    return cells.view(n, height, width, channels).permute(0, 3, 1, 2)


def _both_sets(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, 2, H*W]: one for the cells of each set, the degraded and the clean."""
    marked = mask.flatten(2).to(dtype)
    return torch.cat([marked, 1 - marked], dim=1)


def _fade_weight(counts: Tensor, fade: float) -> Tensor:
    """[N, 1]: how much of the correction applies; zero where a picture lacks one of the sets."""
    return ((counts / (counts + fade).clamp(min=1)).prod(0) * (counts > 0).all(0))[:, None]


def _cell_ranges(cells: Tensor) -> Iterator[slice]:
    """Parts whose intermediate values stay in a CPU's cache; all at once elsewhere."""
    count, channels = cells.shape[1:]
    step = max((1 << 17) // (channels * cells.shape[0]), 1) if cells.device.type == "cpu" else max(count, 1)
    for start in range(0, count, step):
        yield slice(start, start + step)
