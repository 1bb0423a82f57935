"""Branches before clean pictures, seeded: light that comes through their gaps looks like drops.

Limbs come in from the edges and fork until they are twigs, some sharp, those behind them less so. They are
put there before a picture is degraded or left clean, and are in no mask (`lookalike` of raindrops).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]
Floats = NDArray[np.float32]
SKY = np.array([0.9, 0.97, 1.0], dtype=np.float32)
"""Colour of what is behind them where that is not the picture."""
TWIG = 1.2
"""Width in pixels below which a branch does not fork."""
MOST_LIMBS = 60
"""That come into one picture."""


@dataclass(frozen=True)
class BranchConfig:
    """How often branches stand before a clean picture, and which; every value is drawn from its range."""

    branched: float = 0.2
    """Share of pictures that have them."""
    coverage: Range = (0.25, 0.75)
    """Share of the picture that they hide."""
    limb: Range = (0.02, 0.08)
    """Width of a limb where it comes in, as a share of the picture's shorter side."""
    light: Range = (0.0, 0.3)
    """Their own, a share of the greatest."""
    bright: float = 0.6
    """Share of pictures with branches behind which there is sky in place of the picture."""
    defocus: Range = (0.3, 4.0)
    """Standard deviation of the blur of branches, in pixels; small ones are as frequent as large ones."""


def add_branches(
    clean: NDArray[np.uint8], rng: np.random.Generator, config: BranchConfig | None = None
) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], some pictures behind branches: light that comes through small gaps is no drop's.

    Some branches are sharp, those behind them less so. The generator's state decides everything.
    """
    config = config or BranchConfig()
    if rng.random() >= config.branched:
        return clean
    size = clean.shape[0], clean.shape[1]
    shown = clean.astype(np.float32)
    if rng.random() < config.bright:
        sky = 255 * rng.uniform(0.5, 1.0) * SKY
        shown += rng.uniform(0.6, 1.0) * (
            sky * np.linspace(1, rng.uniform(0.7, 1.1), size[0])[:, None, None] - shown
        )
    layers = int(rng.integers(1, 4))
    for coverage in np.full(layers, rng.uniform(*config.coverage) / layers):
        defocus = float(np.exp(rng.uniform(*np.log(config.defocus))))
        hidden = cv2.GaussianBlur(draw_branches(size, rng, coverage, config.limb), (0, 0), defocus)[..., None]
        colour = 255 * rng.uniform(*config.light) * (1 + rng.uniform(-0.15, 0.15, 3))
        bark = rng.normal(1, 0.15, (-(-size[0] // 3), -(-size[1] // 3), 1)).astype(np.float32)
        rough = cv2.resize(bark, size[::-1], interpolation=cv2.INTER_CUBIC)[..., None]
        shown += hidden * (colour * rough - shown)
    return np.asarray(np.clip(np.rint(shown), 0, 255), dtype=np.uint8)


def draw_branches(size: tuple[int, int], rng: np.random.Generator, coverage: float, limb: Range) -> Floats:
    """What branches hide [H, W] in [0, 1]: limbs that come in anywhere and fork until they are twigs."""
    hidden = np.zeros(size, dtype=np.uint8)
    for _ in range(MOST_LIMBS):
        width = rng.uniform(*limb) * min(size)
        start, inward = _edge(size, rng)
        growing = [(start, inward + rng.normal(0, 0.5), width)]
        while growing:
            growing += _grown(hidden, *growing.pop(), rng)
        if hidden.mean() / 255 >= coverage:
            break
    return np.asarray(hidden / np.float32(255))


def _edge(size: tuple[int, int], rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """A place on one of the four edges, and the heading straight in from it."""
    side, along = int(rng.integers(4)), rng.random()
    height, width = size[0] - 1.0, size[1] - 1.0
    places = ((0, along * width), (height, along * width), (along * height, 0), (along * height, width))
    return np.array(places[side]), (np.pi / 2, -np.pi / 2, 0, np.pi)[side]


def _grown(
    hidden: NDArray[np.uint8],
    start: NDArray[np.float64],
    heading: float,
    width: float,
    rng: np.random.Generator,
) -> list[tuple[NDArray[np.float64], float, float]]:
    """Draw one crooked piece of a branch; the pieces that fork off its end: (start, heading, width)."""
    steps = int(rng.integers(4, 12))
    turns = heading + np.cumsum(rng.normal(0, 0.25, steps))
    ahead = (2 + width) * np.stack([np.sin(turns), np.cos(turns)], 1)
    line = np.concatenate([start[None], start + np.cumsum(ahead, axis=0)])
    points = np.round(line[:, ::-1] * 8).astype(np.int32)  # eighths of a pixel, x first
    cv2.polylines(hidden, [points], False, 255, max(1, round(width)), cv2.LINE_AA, 3)
    if width < TWIG:
        return []
    forks = 1 + int(rng.random() < 0.8) + int(rng.random() < 0.3)
    return [(line[-1], turns[-1] + rng.normal(0, 0.7), width * rng.uniform(0.55, 0.9)) for _ in range(forks)]
