"""Training crops: cut, flipped and degraded, with all randomness from a given generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spair_core.degradations.catalogue import degradation
from spair_core.degradations.degradation import Material
from spair_core.masks import THRESHOLD

REAL_SHARE = 0.4
"""Share of clean crops that are degraded with real material, where there is any, instead of drawn."""


@dataclass(frozen=True)
class Example:
    """A picture to learn from or to be judged on, uint8 [H, W, 3].

    `degraded` is None for a clean picture that is yet to be degraded; `mask` bool [H, W] is None
    where the set has none (it then follows from the pair). Raises ValueError where sizes differ.
    """

    degraded: NDArray[np.uint8] | None
    clean: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        for name, other in (("degraded picture", self.degraded), ("mask", self.mask)):
            if other is not None and other.shape[:2] != self.clean.shape[:2]:
                raise ValueError(
                    f"the {name} is {other.shape[1]}x{other.shape[0]}, "
                    f"the clean picture {self.clean.shape[1]}x{self.clean.shape[0]}"
                )


def random_crop(example: Example, size: int, rng: np.random.Generator) -> Example:
    """A `size` x `size` piece at a random place; smaller pictures are continued by reflection."""
    height, width = example.clean.shape[:2]
    top = int(rng.integers(0, max(height - size, 0) + 1))
    left = int(rng.integers(0, max(width - size, 0) + 1))

    def cut(pixels: NDArray) -> NDArray:
        piece = pixels[top : top + size, left : left + size]
        missing = [(0, size - piece.shape[0]), (0, size - piece.shape[1])] + [(0, 0)] * (pixels.ndim - 2)
        return np.pad(piece, missing, mode="symmetric") if piece.shape[:2] != (size, size) else piece

    return _each(example, cut)


def random_flip(example: Example, rng: np.random.Generator) -> Example:
    """Mirrored left-right and top-bottom, each with probability one half."""
    rows, columns = rng.choice([-1, 1], 2)
    return _each(example, lambda pixels: np.ascontiguousarray(pixels[::rows, ::columns]))


def degrade(
    example: Example,
    rng: np.random.Generator,
    task: str,
    *,
    dry: float = 0.12,
    threshold: float = THRESHOLD,
    material: Mapping[str, Material] | None = None,
) -> Example:
    """A clean example degraded for its `task`, drawn or (where there is `material` for it, some of the
    time) real.

    `dry` is the share of drawn ones that stay as they are, `threshold` the difference over which a
    pixel counts as degraded. Raises ValueError for an unknown task.
    """
    clean, drawn, real = example.clean, degradation(task), (material or {}).get(task)
    if real is not None and rng.random() < REAL_SHARE:
        made = real.add(clean, rng, threshold)
    else:
        made = drawn.draw(clean, rng, dry, threshold)
    degraded, mask = made
    return Example(degraded, clean, mask)


def _each(example: Example, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Example:
    degraded = None if example.degraded is None else change(example.degraded)
    return Example(degraded, change(example.clean), None if example.mask is None else change(example.mask))
