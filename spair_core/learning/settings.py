"""How crops are cut and how networks learn from them, as flags tell it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Phase = Literal["localize", "restore", "joint"]
"""Net_L alone; Net_R with Net_L frozen; both."""


@dataclass(frozen=True)
class CropConfig:
    """How crops are cut and degraded."""

    crop_size: int = 256
    """Side of the square crops, in pixels (the paper's: 256)."""
    crops_per_picture: int = 1
    """Crops of a picture in an epoch; more than one saves decoding large pictures."""
    mask_threshold: float = 0.05
    """A pixel is degraded where |degraded - clean| exceeds this share of the range in any channel."""
    dry: float = 0.12
    """Share of clean pictures' crops that stay as they are: what is clean must be left alone."""
    layers: str | None = None
    """Shards of rain pairs whose real streak layers are also laid over clean pictures (task rain)."""
    shadow_masks: str | None = None
    """Folder of shadow masks (bright = shadow) whose shapes are also cast on clean pictures (task shadow)."""
    shakes: str | None = None
    """NPZ file of measured camera-shake kernels that clean pictures are also blurred by (task blur)."""
    moved: float = 0.5
    """Share of clean pictures that a simulated camera makes footage of, for networks that take references."""
    alone: float = 0.12
    """Share of frames that such networks are shown as if they were stills."""
    seed: int = 0
    """Seed of everything that is drawn: order, crops, flips and synthetic degradations."""


@dataclass(frozen=True)
class LearningConfig:
    """Adam and its schedule. The defaults are the paper's (section 4.1)."""

    learning_rate: float = 2e-4
    """Adam's initial learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's averaging coefficients."""
    schedule: Literal["halving", "cosine", "tail"] = "halving"
    """Over a phase: `halving` every `halve_every` epochs, half a `cosine` to zero, or constant with a linear
    `tail` to zero."""
    halve_every: int = 50
    """Epochs between two halvings."""
    tail_share: float = 0.4
    """Share of the epochs over which `tail` decays."""
    clip: float = 1.0
    """Norm to which gradients are clipped; 0 for no clipping."""
    ema: float = 0.0
    """Decay of the averaged weights that are validated and saved; 0 for no averaging."""
    joint_bce: float = 0.1
    """Weight of Net_L's loss in the joint phase."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the products in a step; weights, losses and statistics stay float32. `bfloat16` trains nearly
    twice as fast on GPUs and on CPUs that have it (avx512_bf16, amx)."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or not 0 <= self.ema < 1:
            raise ValueError("learning_rate is above 0, ema at least 0 and below 1")

    def rate(self, epoch: float, epochs: float) -> float:
        """The learning rate at a (fractional) epoch of a phase of `epochs`; or in any other unit of time, but
        for `halving`."""
        if self.schedule == "halving":
            return self.learning_rate * 0.5 ** (int(epoch) // self.halve_every)
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * min(epoch / epochs, 1.0))) / 2
        left = (epochs - epoch) / max(epochs * self.tail_share, 1e-9)
        return self.learning_rate * min(1.0, max(left, 0.0))
