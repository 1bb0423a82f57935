"""Training crops: cut, flipped and degraded, with all randomness from a given generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spair_core.degradations.catalogue import degradations
from spair_core.degradations.degradation import Degradation, Made, Material, Pixels
from spair_core.degradations.drive import degrade_window
from spair_core.footage import Window, cut
from spair_core.masks import THRESHOLD, mask_from_pair

Part = TypeVar("Part")

ALL_SHARE = 0.2
"""Share of what is degraded in more than one way that is so in all of them at once."""
REAL_SHARE = 0.4
"""Share of clean crops that are degraded with real material, where there is any, instead of drawn."""


@dataclass(frozen=True)
class Example:
    """A picture to learn from or to be judged on, uint8 [H, W, 3].

    `degraded` is None for a clean picture that is yet to be degraded; `mask` bool [H, W] is None
    where the set has none (it then follows from the pair). Of a frame, `window` holds those around it as
    they are shown to a model: degraded where it is, clean where it is yet to be. Raises ValueError where
    sizes differ.
    """

    degraded: NDArray[np.uint8] | None
    clean: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None = None
    window: Window | None = None

    @property
    def shown(self) -> Window:
        """What a model is shown: the frame with those around it, or the picture, degraded where it is."""
        picture = self.clean if self.degraded is None else self.degraded
        return self.window or Window.alone(picture[None])

    def __post_init__(self) -> None:
        frame = None if self.window is None else self.window.pixels[self.window.own[0]]
        for name, other in (("degraded picture", self.degraded), ("mask", self.mask), ("window", frame)):
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
    return _each(example, lambda pixels: cut(pixels, top, left, size))


def random_flip(example: Example, rng: np.random.Generator) -> Example:
    """Mirrored left-right and top-bottom, each with probability one half; frames left-right only, whose sky
    is above."""
    rows, columns = rng.choice([-1, 1], 2)
    rows = rows if example.window is None else 1
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
    parts, material = degradations(task), material or {}
    if example.window is not None:
        return _degraded_frame(example.window, parts, rng, dry, threshold)
    clean = example.clean
    for part in parts:
        clean = clean if part.lookalike is None else part.lookalike(clean, rng)
    if len(parts) == 1:
        degraded, mask = _degraded(clean, parts[0], rng, dry, threshold, material)
        return Example(degraded, clean, mask)
    degraded = clean
    for part in () if rng.random() < dry else _some(parts, rng):
        degraded, _ = _degraded(degraded, part, rng, 0.0, threshold, material)
    return Example(degraded, clean, mask_from_pair(degraded, clean, threshold))


def _degraded(
    clean: Pixels,
    part: Degradation,
    rng: np.random.Generator,
    dry: float,
    threshold: float,
    material: Mapping[str, Material],
) -> Made:
    real = material.get(part.name)
    if real is not None and rng.random() < REAL_SHARE:
        return real.add(clean, rng, threshold)
    return part.draw(clean, rng, dry, threshold)


def _degraded_frame(
    window: Window, parts: Sequence[Degradation], rng: np.random.Generator, dry: float, threshold: float
) -> Example:
    """What is of footage among the parts, laid over the window."""
    overs = [part.over for part in parts if part.over is not None]
    chosen = [] if not overs or rng.random() < dry else _some(overs, rng)

    def weather(frames: Sequence[Pixels], rng: np.random.Generator) -> list[Pixels]:
        for over in chosen:
            frames = over(frames, rng)
        return list(frames)

    beside, clean, mask = degrade_window(window, weather, rng, threshold)
    return Example(beside.pixels[beside.own[0]], clean, mask, beside)


def _some(parts: Sequence[Part], rng: np.random.Generator) -> Sequence[Part]:
    """One of the parts, each as often, or sometimes all."""
    choice = int(rng.integers(len(parts)))
    return parts if rng.random() < ALL_SHARE else parts[choice : choice + 1]


def _each(example: Example, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Example:
    def maybe(pixels: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if pixels is None else change(pixels)

    window = example.window
    if window is not None:
        window = replace(window, pixels=np.stack([change(frame) for frame in window.pixels]))
    return Example(maybe(example.degraded), change(example.clean), maybe(example.mask), window)
