"""Net_R, the restoration network: degraded picture, mask and Net_L's features -> correction.

A dense encoder from half resolution down; a decoder whose work stands on the degraded cells (SC
and SNL in every level); at full resolution only SC, a fusion and the output are left, so the
cost of a picture follows its degraded area (paper, section 3.2 and figure 2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import ActiveIndex
from spair_core.network.blocks import (
    DenseBlock,
    FeatureModulator,
    NonLocal,
    Pointwise,
    Rise,
    SparseConvolution,
    SparseNonLocal,
    replace_rows,
    rows_of,
)
from spair_core.network.configuration import RestorerConfig
from spair_core.network.localization import Localization


class DecoderBlock(nn.Module):
    """One decoder level's work: SC (or a dense block), then SNL (or a non-local layer, or nothing)."""

    def __init__(self, channels: int, growth: int, config: RestorerConfig, *, attend: bool) -> None:
        super().__init__()
        sparse = config.decoder == "sparse"
        self.convolve = SparseConvolution(channels, growth) if sparse else DenseBlock(channels, growth, 6)
        self.attend: SparseNonLocal | NonLocal | None = None
        if attend and config.attention == "sparse":
            self.attend = SparseNonLocal(channels, guarded=config.guarded)
        elif attend and config.attention == "full":
            self.attend = NonLocal(channels)

    def forward(self, features: Tensor, index: ActiveIndex) -> Tensor:
        """N x C x H x W -> N x C x H x W; the sparse forms leave clean cells unaltered."""
        if isinstance(self.convolve, DenseBlock):
            features = self.convolve(features)
        elif index.active.numel() > 0:
            features = self._on_degraded(features, index)
        return self.attend(features) if isinstance(self.attend, NonLocal) else features

    def _on_degraded(self, features: Tensor, index: ActiveIndex) -> Tensor:
        cells = rows_of(features)
        rows = cells.index_select(0, index.active)
        rows = rows + self.convolve(rows, index)
        if isinstance(self.attend, SparseNonLocal):
            rows = self.attend(rows, cells.index_select(0, index.clean), index)
        return replace_rows(features, index.active, rows)


class Restorer(nn.Module):
    """Net_R. Sizes must be multiples of 8."""

    def __init__(
        self, config: RestorerConfig, guide_channels: tuple[int, int, int], channels: int = 3
    ) -> None:
        super().__init__()
        half, quarter, eighth = config.channels
        self.stem = nn.Conv2d(4 * channels, half, 3, padding=1)
        self.encoder = nn.ModuleList(
            DenseBlock(c, g, n) for c, g, n in zip(config.channels, config.growth, config.layers, strict=True)
        )
        self.down = nn.ModuleList(
            [
                nn.Conv2d(half, quarter, 3, stride=2, padding=1),
                nn.Conv2d(quarter, eighth, 3, stride=2, padding=1),
            ]
        )
        self.encoder_modulators = self._modulators(config, guide_channels, levels=3)
        self.decoder_modulators = self._modulators(config, guide_channels, levels=2)
        self.rise = nn.ModuleList([Rise(quarter, half), Rise(eighth, quarter)])
        self.full_up = Pointwise(half, 4 * config.full_channels)
        self.full_skip = nn.Conv2d(4 * channels, 4 * config.full_channels, 3, padding=1)
        widths = (config.full_channels, *config.channels)
        self.decoder = nn.ModuleList(
            DecoderBlock(c, g, config, attend=level > 0)
            for level, (c, g) in enumerate(zip(widths, config.sparse_growth, strict=True))
        )
        self.output = nn.Conv2d(config.full_channels, 3, 3, padding=1)

    @staticmethod
    def _modulators(config: RestorerConfig, guides: tuple[int, ...], levels: int) -> nn.ModuleList:
        if not config.modulate:
            return nn.ModuleList()
        return nn.ModuleList(
            FeatureModulator(c, g, guarded=config.guarded)
            for c, g in list(zip(config.channels, guides, strict=True))[:levels]
        )

    def forward(
        self,
        pictures: Tensor,
        located: Localization,
        indices: tuple[ActiveIndex, ...],
        opened: Tensor | None = None,
    ) -> Tensor:
        """The correction N x 3 x H x W to add to the pictures.

        `pictures` N x C x H x W: in [0, 1], and where C is 9 the references' differences after them.
        `indices` are those of the mask at full resolution, 1/2, 1/4 and 1/8. `opened` is what `open` gives,
        where it has been called.
        """
        unshuffled = F.pixel_unshuffle(pictures, 2)
        skips = self._encode(self._opened(unshuffled) if opened is None else opened, located, indices)
        features = self.decoder[3](skips[2], indices[3])
        for level in (1, 0):
            features = self._rise(level, features, skips[level], located, indices)
        return self._finish(unshuffled, features, indices[0])

    def open(self, pictures: Tensor) -> Tensor:
        """The features N x C x H/2 x W/2 of the first dense block: all that comes before the mask."""
        return self._opened(F.pixel_unshuffle(pictures, 2))

    def _opened(self, unshuffled: Tensor) -> Tensor:
        return self.encoder[0](F.relu_(self.stem(unshuffled)))

    def _encode(
        self, features: Tensor, located: Localization, indices: tuple[ActiveIndex, ...]
    ) -> list[Tensor]:
        skips: list[Tensor] = []
        for level in range(3):
            if level:
                features = self.encoder[level](F.relu_(self.down[level - 1](skips[-1])))
            if self.encoder_modulators:
                guide = located.encoder[level]
                features = self.encoder_modulators[level](features, guide, indices[level + 1])
            skips.append(features)
        return skips

    def _rise(
        self,
        level: int,
        coarse: Tensor,
        skip: Tensor,
        located: Localization,
        indices: tuple[ActiveIndex, ...],
    ) -> Tensor:
        features = self.rise[level](coarse, skip)
        index = indices[level + 1]
        if self.decoder_modulators:
            features = self.decoder_modulators[level](features, located.decoder[level], index)
        return self.decoder[level + 1](features, index)

    def _finish(self, unshuffled: Tensor, half: Tensor, index: ActiveIndex) -> Tensor:
        merged = F.relu_(self.full_up(half).add_(self.full_skip(unshuffled)))
        features = F.pixel_shuffle(merged, 2).contiguous(memory_format=torch.channels_last)
        return self.output(self.decoder[0](features, index))
