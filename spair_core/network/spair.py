"""SPAIR: Net_L finds the degraded pixels, Net_R restores them (ICCV 2021, arXiv 2108.08617)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import ActiveIndex, build_indices
from spair_core.gpu import Replayed
from spair_core.network.configuration import MULTIPLE, NetworkConfig
from spair_core.network.localization import Localization, Localizer
from spair_core.network.restoration import Restorer

COARSE_SHARE = 1 / 8
"""At 1/4 and 1/8 a cell is degraded if at least this share of its pixels is: taking the maximum
there as well would leave thin streaks with hardly a clean cell to draw on."""

SURE = 0.8
"""Net_L's probability over which a pixel is surely degraded."""


@dataclass(frozen=True)
class Output:
    """`restored` N x 3 x H x W (not clamped), `logits` of the mask N x 1 x H x W, `mask` bool."""

    restored: Tensor
    logits: Tensor
    mask: Tensor

    @property
    def sure(self) -> Tensor:
        """Which pixels are surely degraded, bool N x 1 x H x W."""
        return self.logits.sigmoid() > SURE


class Spair(nn.Module):
    """Net_L -> mask -> Net_R; pictures of any size."""

    replay: Replayed | None = None
    """Of what comes before the mask, see `replayed`."""
    scales = False
    """Whether large pictures are restored at coarser scales as well, and what is found in even surroundings
    made as even (`spair_core.inference`): `weights.load` sets it by the task. The paper's own networks see
    each picture once."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        channels = 9 if config.references else 3
        self.localizer = Localizer(config.localizer, channels)
        self.restorer = Restorer(config.restorer, config.localizer.channels, channels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        pictures: Tensor,
        mask: Tensor | None = None,
        references: Tensor | None = None,
        factors: Sequence[Tensor] | None = None,
    ) -> Output:
        """Restore N x 3 x H x W pictures in [0, 1]; a given `mask` (bool) replaces Net_L's.

        `references` N x 6 x H x W in [0, 1] are the aligned and the fixed one of frames; pictures have none.
        `factors` are those of `Localizer.forward`.
        """
        padded = pad_to_multiple(self.stacked(pictures, references))
        seen = padded.to(self.dtype)
        located, opened = self._begun(seen, factors)
        if mask is None:
            predicted = self.binarize(located.logits)
        else:
            predicted = pad_to_multiple(mask.to(pictures.dtype)) > 0.5
        correction = self.restorer(seen, located, self.indices(predicted), opened)
        restored = padded[:, :3] + correction.to(padded.dtype)
        height, width = pictures.shape[-2:]
        return Output(
            restored[..., :height, :width],
            located.logits[..., :height, :width],
            predicted[..., :height, :width],
        )

    def _begun(self, seen: Tensor, factors: Sequence[Tensor] | None) -> tuple[Localization, Tensor | None]:
        """Net_L's result, and, where it is replayed, what of Net_R comes before the mask."""
        if self.replay is None or factors is not None:
            return self.localizer(seen, factors), None
        logits, half, quarter, eighth, half_up, quarter_up, opened = self.replay(seen)
        return Localization(logits, (half, quarter, eighth), (half_up, quarter_up)), opened

    def before_mask(self, seen: Tensor) -> tuple[Tensor, ...]:
        """All that both networks make of padded pictures, whose shapes decide, before the mask is known."""
        located = self.localizer(seen)
        return located.logits, *located.encoder, *located.decoder, self.restorer.open(seen)

    def weights_before_mask(self) -> Iterator[Tensor]:
        """What `before_mask` reads."""
        for part in (self.localizer, self.restorer.stem, self.restorer.encoder[0]):
            yield from part.parameters()

    def locate(self, pictures: Tensor, references: Tensor | None = None) -> Tensor:
        """Net_L alone: logits N x 1 x H x W."""
        height, width = pictures.shape[-2:]
        stacked = pad_to_multiple(self.stacked(pictures, references))
        return self.localizer(stacked.to(self.dtype)).logits[..., :height, :width]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; all is in it but statistics and the sum of a picture and its correction."""
        return self.restorer.stem.weight.dtype

    def stacked(self, pictures: Tensor, references: Tensor | None) -> Tensor:
        """What enters both networks: x, and where they take references r - x and s - x.

        A picture without references is its own. Networks that take none see the pictures alone.
        """
        if not self.config.references:
            return pictures
        if references is None:
            return F.pad(pictures, (0, 0, 0, 0, 0, 6))
        return torch.cat([pictures, references - pictures.repeat(1, 2, 1, 1)], dim=1)

    def binarize(self, logits: Tensor) -> Tensor:
        """The mask (bool) that Net_R works with."""
        return logits.detach().sigmoid() > self.config.binarize

    def trusted(self, found: Tensor, sure: Tensor) -> Tensor:
        """The masks `found` (bool N x 1 x H x W), empty for pictures in which too few pixels are `sure`."""
        certain, total = (mask.sum((1, 2, 3), keepdim=True) for mask in (sure, found))
        return found & (certain >= self.config.sure * total)

    def indices(self, mask: Tensor) -> tuple[ActiveIndex, ...]:
        """The active pixels of a mask at full resolution, 1/2, 1/4 and 1/8."""
        coarser = self.config.restorer.attention == "sparse"
        return tuple(
            build_indices(coarsen(mask), non_local=[False, coarser, coarser, coarser], dtype=self.dtype)
        )


def lowered(model: Spair, dtype: torch.dtype) -> Spair:
    """The same network with weights of a lower precision, for restoring: squeeze-and-excitation, whose
    statistics are of whole pictures, stays in float32."""
    low = copy.deepcopy(model).to(dtype)
    low.localizer.excite.float()
    return low


def replayed(model: Spair) -> Spair:
    """The same network and weights; on a GPU in inference mode it replays what is launched before the mask is
    known, as one CUDA graph a shape. Results are equal. Nothing asks for it until it is measured."""
    same = copy.copy(model)
    same.replay = Replayed(same.before_mask, same.weights_before_mask)
    return same


def grown(model: Spair, config: NetworkConfig) -> Spair:
    """The same weights in a network that also takes references or squeezes: same results, until it learns on.

    Raises ValueError where the network of `config` is another in any other way.
    """
    own = model.config
    config = config.at_thresholds_of(own)
    kept = replace(
        config,
        references=config.references and own.references,
        localizer=replace(config.localizer, squeeze=config.localizer.squeeze and own.localizer.squeeze),
    )
    if kept != own:
        raise ValueError("the networks differ by more than added references and squeeze-and-excitation")
    larger = Spair(config)
    tensors = larger.state_dict()
    for name, value in model.state_dict().items():
        tensors[name] = torch.zeros_like(tensors[name])  # the weights of what was not seen before
        tensors[name][tuple(slice(side) for side in value.shape)] = value
    larger.load_state_dict(tensors)
    return larger


def pad_to_multiple(pictures: Tensor, multiple: int = MULTIPLE) -> Tensor:
    """Extend below and to the right by reflection (by repetition where a side is too short)."""
    height, width = pictures.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if down == 0 and right == 0:
        return pictures.contiguous(memory_format=torch.channels_last)
    mode = "reflect" if down < height and right < width else "replicate"
    padded = F.pad(pictures, (0, right, 0, down), mode=mode)
    return padded.contiguous(memory_format=torch.channels_last)


def coarsen(mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """bool N x 1 x H x W (sides multiples of 8) -> the mask at 1, 1/2, 1/4 and 1/8."""
    share = mask.float()
    half = F.max_pool2d(share, 2) > 0
    quarter = F.avg_pool2d(share, 4) >= COARSE_SHARE
    eighth = F.avg_pool2d(share, 8) >= COARSE_SHARE
    return mask, half, quarter, eighth
