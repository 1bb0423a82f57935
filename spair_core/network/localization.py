"""Net_L, the localization network: degraded picture -> where it is degraded (paper, section 3.1).

A small densely connected U-Net whose convolutions all run at half resolution and below: the
picture enters through a pixel-unshuffle and the mask leaves through a pixel-shuffle, so that
streaks one pixel wide are neither lost nor paid for at full resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from spair_core.network.blocks import DenseBlock, Rise, SqueezeExcitation, excited, moments
from spair_core.network.configuration import LocalizerConfig

PLACES = 5
"""Dense blocks, each of which may be followed by squeeze-and-excitation."""


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

    def __init__(self, config: LocalizerConfig, channels: int = 3) -> None:
        super().__init__()
        wide, mid, deep = config.channels
        self.stem = nn.Conv2d(4 * channels, wide, 3, padding=1)
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
        widths = (*config.channels, mid, wide) if config.squeeze else ()
        self.excite = nn.ModuleList(map(SqueezeExcitation, widths))

    def forward(self, pictures: Tensor, factors: Sequence[Tensor] | None = None) -> Localization:
        """`pictures` N x C x H x W: in [0, 1], and where C is 9 the references' differences after them.

        `factors`, one N x C a place, replace those of squeeze-and-excitation: of a picture in tiles, they are
        the whole picture's.
        """
        done: list[Tensor] = []
        for place in range(PLACES):
            features = self._block(place, pictures, done)
            if self.excite:
                given = self.factors(place, *moments(features)) if factors is None else factors[place]
                features = excited(features, given)
            done.append(features)
        half, quarter, eighth, quarter_up, half_up = done
        logits = F.pixel_shuffle(self.head(half_up), 2)
        return Localization(logits, (half, quarter, eighth), (half_up, quarter_up))

    def factors(self, place: int, mean: Tensor, deviation: Tensor) -> Tensor:
        """Those of squeeze-and-excitation after a block: N x C and N x C over whole pictures -> N x C."""
        return cast(SqueezeExcitation, self.excite[place]).factors(mean, deviation)

    def unexcited(self, pictures: Tensor, factors: Sequence[Tensor]) -> Tensor:
        """The features N x C x h x w whose statistics give the factors that follow those given."""
        done: list[Tensor] = []
        for place, given in enumerate(factors):
            done.append(excited(self._block(place, pictures, done), given))
        return self._block(len(factors), pictures, done)

    def _block(self, place: int, pictures: Tensor, done: Sequence[Tensor]) -> Tensor:
        """What a dense block makes of the picture or of earlier blocks' features."""
        match place:
            case 0:
                return self.encoder[0](F.relu_(self.stem(F.pixel_unshuffle(pictures, 2))))
            case 1 | 2:
                return self.encoder[place](F.relu_(self.down[place - 1](done[place - 1])))
            case 3:
                return self.decoder[1](self.rise[1](done[2], done[1]))
            case _:
                return self.decoder[0](self.rise[0](done[3], done[0]))
