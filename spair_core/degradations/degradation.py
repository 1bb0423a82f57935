"""What a degradation is to all that trains against it, ingests for it and judges what is left of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Made = tuple[Pixels, NDArray[np.bool_]]
"""A degraded picture uint8 [H, W, 3] and the mask bool [H, W] of where it is."""

Over = Callable[[Sequence[Pixels], np.random.Generator], list[Pixels]]
"""A degradation laid over frames uint8 [H, W, 3] of one scene."""

Measure = Literal["Y", "RGB", "Lab"]
"""PSNR and SSIM on luma or on RGB, or errors in CIE Lab by region."""


class Material(Protocol):
    """A degradation taken from real pictures, to lay over others."""

    def add(self, clean: Pixels, rng: np.random.Generator, threshold: float) -> Made:
        """Lay it over a clean picture; a pixel that differs by more than `threshold` counts as degraded."""


@dataclass(frozen=True)
class Degradation:
    """One kind of it. A module of this room has one, `catalogue.DEGRADATIONS` all."""

    name: str
    """The task in shards, in the cards of weights, and in flags."""
    judged_on: Measure
    """What the field judges restored pictures by."""
    draw: Callable[[Pixels, np.random.Generator, float, float], Made]
    """(clean, rng, dry, threshold): degrade a clean picture. All randomness is the generator's; the share
    `dry` of the pictures stays as it is, with an empty mask."""
    over: Over | None = None
    """The same laid over frames of one scene; None where footage has none of it."""
    lookalike: Callable[[Pixels, np.random.Generator], Pixels] | None = None
    """What looks like it and is none: done to some clean pictures before, and to be left in them."""
    sized: bool = False
    """Whether it is known by its size in pixels, so that in large pictures, where it is larger, it has to be
    looked for more coarsely as well; what it hides is small, and mostly looks like what is around it."""
