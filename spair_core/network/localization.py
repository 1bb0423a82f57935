"""Net_L, the localization network: degraded picture -> where it is degraded (paper, section 3.1).

A small densely connected U-Net whose convolutions all run at half resolution and below: the
picture enters through a pixel-unshuffle and the mask leaves through a pixel-shuffle, so that
streaks one pixel wide are neither lost nor paid for at full resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from spair_core.network.blocks import DenseBlock, Rise


@dataclass(frozen=True)
class LocalizerConfig:
    """Widths at 1/2, 1/4 and 1/8 of the resolution, and the dense blocks' growth and layers there."""

    channels: tuple[int, int, int] = (32, 48, 64)
    growth: tuple[int, int, int] = (16, 16, 24)
    encoder_layers: tuple[int, int, int] = (3, 3, 3)
    decoder_layers: tuple[int, int] = (2, 2)


@dataclass(frozen=True)
class Localization:
    """Net_L's result: `logits` N x 1 x H x W, and its features, which guide Net_R.

    `encoder` holds those at 1/2, 1/4, 1/8; `decoder` those at 1/2, 1/4.
    """

    logits: Tensor
    encoder: tuple[Tensor, Tensor, Tensor]
    decoder: tuple[Tensor, Tensor]


class Localizer(nn.Module):
    """Net_L. Sizes must be multiples of 8."""

    def __init__(self, config: LocalizerConfig) -> None:
        super().__init__()
        wide, mid, deep = config.channels
        self.stem = nn.Conv2d(12, wide, 3, padding=1)
        self.encoder = nn.ModuleList(
            DenseBlock(c, g, n)
            for c, g, n in zip(config.channels, config.growth, config.encoder_layers, strict=True)
        )
        self.down = nn.ModuleList(
            [nn.Conv2d(wide, mid, 3, stride=2, padding=1), nn.Conv2d(mid, deep, 3, stride=2, padding=1)]
        )
        self.rise = nn.ModuleList([Rise(mid, wide), Rise(deep, mid)])
        self.decoder = nn.ModuleList(
            DenseBlock(c, g, n)
            for c, g, n in zip(config.channels, config.growth, config.decoder_layers, strict=False)
        )
        self.head = nn.Conv2d(wide, 4, 3, padding=1)

    def forward(self, pictures: Tensor) -> Localization:
        """`pictures` N x 3 x H x W in [0, 1]."""
        half = self.encoder[0](F.relu_(self.stem(F.pixel_unshuffle(pictures, 2))))
        quarter = self.encoder[1](F.relu_(self.down[0](half)))
        eighth = self.encoder[2](F.relu_(self.down[1](quarter)))
        quarter_up = self.decoder[1](self.rise[1](eighth, quarter))
        half_up = self.decoder[0](self.rise[0](quarter_up, half))
        logits = F.pixel_shuffle(self.head(half_up), 2)
        return Localization(logits, (half, quarter, eighth), (half_up, quarter_up))
