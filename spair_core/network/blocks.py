"""The building blocks of both networks: dense block, SFM, SC, SNL and the ordinary non-local layer.

Shape letters: N pictures, C channels, H x W cells of a level, n degraded cells, m clean cells.
Features are N x C x H x W in channels-last memory, so that their *rows* ([N*H*W, C]) are a view.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import ActiveIndex, sc_block, sfm, snl_step

# The guards of SFM (spec: statistics of one or two pixels explode); `paper` turns them off.
SFM_EPS = 1e-3
SFM_MAX_RATIO = 4.0
SFM_FADE = 16.0
SFM_PAPER_EPS = 1e-5


def rows_of(features: Tensor) -> Tensor:
    """N x C x H x W -> [N*H*W, C], a view where the memory is channels-last."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def replace_rows(features: Tensor, positions: Tensor, rows: Tensor) -> Tensor:
    """The features with the cells at the flat `positions` [n] replaced by `rows` [n, C]."""
    n, channels, height, width = features.shape
    replaced = rows_of(features).index_copy(0, positions, rows.to(features.dtype))
    return replaced.view(n, height, width, channels).permute(0, 3, 1, 2)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, computed as one product over the rows: on CPUs twice as fast as the general form."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """N x C x H x W -> N x C_out x H x W."""
        return pointwise(features, self.weight, self.bias)


def pointwise(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product of every cell, N x C x H x W, with a weight [C_out, C, 1, 1]."""
    n, _, height, width = features.shape
    rows = F.linear(rows_of(features), weight.flatten(1), bias)
    return rows.view(n, height, width, -1).permute(0, 3, 1, 2)


class Rise(nn.Module):
    """From a coarser level to the finer one: project, repeat each cell 2x2, merge with the skip, ReLU.

    The merge of the repeated half is taken before repeating, where it costs a quarter.
    """

    def __init__(self, coarse_channels: int, channels: int) -> None:
        super().__init__()
        self.up = Pointwise(coarse_channels, channels)
        self.merge = Pointwise(2 * channels, channels)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """`coarse` N x C' x H/2 x W/2, `skip` N x C x H x W -> N x C x H x W."""
        from_coarse, from_skip = self.merge.weight.chunk(2, dim=1)
        risen = pointwise(self.up(coarse), from_coarse, self.merge.bias)
        risen = F.interpolate(risen, scale_factor=2, mode="nearest")
        return F.relu_(pointwise(skip, from_skip, None).add_(risen))

    def macs(self, cells: int) -> int:
        """Multiply-accumulates of merging into so many cells of the finer level (`up` has its own)."""
        half = self.merge.weight.numel() // 2
        return half * cells + half * (cells // 4)


class DenseBlock(nn.Module):
    """Densely connected 3x3 convolutions, then a 1x1 back to the width, added to the input."""

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(channels + i * growth, growth, 3, padding=1) for i in range(layers)
        )
        self.fuse = Pointwise(channels + layers * growth, channels)

    def forward(self, features: Tensor) -> Tensor:
        """N x C x H x W -> N x C x H x W."""
        seen = features
        for layer in self.layers:
            seen = torch.cat([seen, F.relu_(layer(seen))], dim=1)
        return self.fuse(seen).add_(features)


class SqueezeExcitation(nn.Module):
    """Weighs channels by their mean and standard deviation over the picture (Hu et al. 2018, with both).

    Begins as the identity, so that weights without it can learn on with it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(2 * channels, channels // 2)
        self.excite = nn.Linear(channels // 2, channels)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def factors(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """N x C and N x C over each picture -> what its channels are multiplied by, N x C in (0, 2)."""
        hidden = F.relu_(self.squeeze(torch.cat([mean, deviation], dim=1)))
        return 2 * torch.sigmoid(self.excite(hidden).float())


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over each picture: N x C x H x W -> N x C and N x C, in float32."""
    deviation, mean = torch.std_mean(features.float(), dim=(2, 3), correction=0)
    return mean, deviation


def excited(features: Tensor, factors: Tensor) -> Tensor:
    """Features N x C x H x W times `factors` N x C."""
    return features * factors[:, :, None, None].to(features.dtype)


class FeatureModulator(nn.Module):
    """SFM (eq. 1): adds Net_L's feature, then gives degraded cells the statistics of the clean ones.

    `guarded` computes it with the bounds that keep training stable; otherwise by the letter.
    """

    def __init__(self, channels: int, guide_channels: int, *, guarded: bool) -> None:
        super().__init__()
        self.project = Pointwise(guide_channels, channels)
        self.guarded = guarded

    def forward(self, features: Tensor, guide: Tensor, index: ActiveIndex) -> Tensor:
        """`features` N x C x H x W, `guide` (Net_L's, same level) N x C_L x H x W."""
        fused = self.project(guide).add_(features)
        if index.active.numel() == 0:
            return fused
        mask = index.mask
        if self.guarded:
            return sfm(fused, mask, eps=SFM_EPS, max_ratio=SFM_MAX_RATIO, fade=SFM_FADE)
        return sfm(fused, mask, eps=SFM_PAPER_EPS, max_ratio=math.inf, fade=0.0)


class SparseConvolution(nn.Module):
    """SC (eq. 2): `layers` densely connected submanifold 3x3 convolutions and a 1x1, degraded cells only."""

    def __init__(self, channels: int, growth: int, layers: int = 6) -> None:
        super().__init__()
        shapes = [nn.Conv2d(channels + i * growth, growth, 3) for i in range(layers)]
        self.weights = nn.ParameterList(conv.weight for conv in shapes)
        self.biases = nn.ParameterList(conv.bias for conv in shapes)
        self.fuse = nn.Linear(channels + layers * growth, channels)

    def forward(self, rows: Tensor, index: ActiveIndex) -> Tensor:
        """Rows of the degraded cells [n, C] -> their update [n, C] (the caller adds it)."""
        return sc_block(rows, index, list(self.weights), list(self.biases), self.fuse.weight, self.fuse.bias)

    def macs(self, index: ActiveIndex) -> int:
        """Multiply-accumulates of one call on this mask."""
        return int(self.cell_macs(index.mask).sum())

    def cell_macs(self, mask: Tensor) -> Tensor:
        """Those spent at every cell: int64 N x 1 x H x W for a mask bool N x 1 x H x W."""
        per_cell = sum(weight.numel() for weight in self.weights) + self.fuse.weight.numel()
        return mask.long() * per_cell


class SparseNonLocal(nn.Module):
    """SNL (eq. 3-5): degraded cells gather from the clean ones on their row and column, in two steps.

    By the letter, each step replaces a degraded cell by what it gathered, weighted by a linear
    e. Guarded, scores are divided by sqrt(C), e is bounded by tanh and starts small, and a step
    adds to the cell: the literal output grows with the cube of the features' scale.
    """

    def __init__(self, channels: int, *, guarded: bool) -> None:
        super().__init__()
        blends = [nn.Linear(channels, 4) for _ in range(2)]
        for blend in blends:
            nn.init.constant_(blend.bias, 0.1 if guarded else 0.25)
        self.blends = nn.ModuleList(blends)
        self.between = nn.Linear(channels, channels)
        self.guarded = guarded
        self.scale = channels**-0.5 if guarded else 1.0

    def forward(self, rows: Tensor, keys: Tensor, index: ActiveIndex) -> Tensor:
        """`rows` [n, C] of the degraded cells, `keys` [m, C] of the clean ones -> new rows [n, C]."""
        gathered = self._step(0, rows, keys, index)
        return self._step(1, self.between(gathered), keys, index)

    def _step(self, number: int, rows: Tensor, keys: Tensor, index: ActiveIndex) -> Tensor:
        blend = self.blends[number](rows)
        if not self.guarded:
            return snl_step(rows, keys, blend, index, self.scale)
        return rows + snl_step(rows, keys, torch.tanh(blend), index, self.scale)

    def macs(self, index: ActiveIndex) -> int:
        """Multiply-accumulates of one call on this mask: pairs on shared lines, and the linear layers."""
        return int(self.cell_macs(index.mask).sum())

    def cell_macs(self, mask: Tensor) -> Tensor:
        """Those spent at every cell: int64 N x 1 x H x W for a mask bool N x 1 x H x W."""
        clean = (~mask).long()
        pairs = clean.sum(2, keepdim=True) + clean.sum(3, keepdim=True)
        channels = self.between.in_features
        linear = channels * channels + 2 * 4 * channels
        return mask.long() * (2 * 2 * channels * pairs + linear)


class NonLocal(nn.Module):
    """The ordinary non-local layer of ablation Net4: every cell gathers from every cell."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fuse = Pointwise(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """N x C x H x W -> N x C x H x W."""
        n, channels, height, width = features.shape
        rows = rows_of(features).view(n, 1, height * width, channels)
        gathered = F.scaled_dot_product_attention(rows, rows, rows)
        return features + self.fuse(gathered.view(n, height, width, channels).permute(0, 3, 1, 2))
