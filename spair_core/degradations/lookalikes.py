"""What looks like drops and is none, put into clean pictures, seeded: branches and clouds.

Light comes through the gaps of branches; small clouds are bright and soft, as drops out of focus are. They
are put there before a picture is degraded or left clean, and are in no mask (`lookalike` of raindrops).
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
EVEN = 5.0
"""Levels by which pixels differ from those around them where there is sky, at most."""


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


@dataclass(frozen=True)
class CloudConfig:
    """How often clouds stand in a clean picture's sky, and which; every value is drawn from its range."""

    cloudy: float = 0.15
    """Share of pictures that have them."""
    opened: float = 0.6
    """Share of these whose upper part, or all, is open sky in place of the picture; in others clouds stand
    where it is even and bright."""
    cover: Range = (0.05, 0.6)
    """Share of the sky that they hide."""
    size: Range = (12, 160)
    """Of clouds, in pixels; small ones are as frequent as large ones."""
    edge: Range = (0.1, 1.5)
    """Over how much of their thickness (a normal variate) they thin out."""
    light: Range = (0.6, 1.0)
    """Theirs, a share of the greatest."""


def add_lookalikes(clean: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], some pictures with what looks like drops. The generator's state decides everything."""
    return add_branches(add_clouds(clean, rng), rng)


def add_clouds(
    clean: NDArray[np.uint8], rng: np.random.Generator, config: CloudConfig | None = None
) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], some pictures with clouds in their sky, or under a sky of their own."""
    config = config or CloudConfig()
    if rng.random() >= config.cloudy:
        return clean
    size = clean.shape[0], clean.shape[1]
    shown = clean.astype(np.float32)
    if rng.random() < config.opened:
        open_sky = _above(size, rng)
        shown += open_sky * (_clear_sky(size, rng) - shown)
    else:
        open_sky = _even(shown)
    clouds = open_sky * draw_clouds(size, rng, config)
    under = 1 - rng.uniform(0, 0.4) * _uneven(size, rng, rng.uniform(*config.size) / 2)
    white = 255 * rng.uniform(*config.light) * np.array([1, rng.uniform(0.96, 1), rng.uniform(0.9, 1)])
    shown += clouds * (white * np.clip(under, 0.5, 1)[..., None] - shown)
    return np.asarray(np.clip(np.rint(shown), 0, 255), dtype=np.uint8)


def draw_clouds(size: tuple[int, int], rng: np.random.Generator, config: CloudConfig) -> Floats:
    """What clouds hide [H, W, 1] in [0, 1] of a sky of `size` (height, width)."""
    thickness = _uneven(size, rng, float(np.exp(rng.uniform(*np.log(config.size)))))
    bare = np.quantile(thickness, 1 - rng.uniform(*config.cover))
    dense = np.clip((thickness - bare) / rng.uniform(*config.edge), 0, 1)
    return np.asarray(rng.uniform(0.5, 1) * dense[..., None], dtype=np.float32)


def _uneven(size: tuple[int, int], rng: np.random.Generator, grain: float) -> Floats:
    """[H, W] of mean 0 and deviation 1: lumps of `grain` pixels, wider than high, with ever smaller ones on
    them."""
    total = np.zeros(size, dtype=np.float32)
    weight, wide = 1.0, rng.uniform(1, 2.5)
    while grain >= 1.5:
        cells = (int(size[0] / grain) + 3, int(size[1] / (wide * grain)) + 3)
        lumps = rng.standard_normal(cells).astype(np.float32)
        # Larger than the picture, which is cut from anywhere in a cell.
        scaled = (round(cells[1] * wide * grain), round(cells[0] * grain))
        large = cv2.resize(lumps, scaled, interpolation=cv2.INTER_CUBIC)
        top, left = (
            int(rng.integers(0, have - want + 1)) for have, want in zip(large.shape, size, strict=True)
        )
        total += weight * large[top : top + size[0], left : left + size[1]]
        weight, grain = weight * rng.uniform(0.35, 0.65), grain / 2
    return np.asarray((total - total.mean()) / max(float(total.std()), 1e-6))


def _above(size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """[H, W, 1], 1 above an uneven horizon, which may lie below the picture."""
    horizon = size[0] * rng.uniform(0.3, 1.4)
    ridge = horizon + size[0] * rng.uniform(0, 0.1) * _uneven((1, size[1]), rng, rng.uniform(4, 60))[0]
    return np.asarray(np.clip(ridge[None] - np.arange(size[0])[:, None], 0, 1)[..., None], dtype=np.float32)


def _clear_sky(size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """A cloudless one [H, W, 3], which may be grey, or dim."""
    red = rng.uniform(0.3, 0.75)
    blue = np.array([red, rng.uniform(red + 0.1, 0.9), 1.0])
    sky = 255 * rng.uniform(0.45, 1.0) * (blue + rng.random() * (0.85 - blue))
    paler = np.linspace(0, rng.uniform(0, 0.5), size[0])[:, None, None]
    return np.asarray(np.broadcast_to(sky + paler * (235 - sky), (*size, 3)), dtype=np.float32)


def _even(shown: Floats) -> Floats:
    """Where a picture [H, W, 3] is even and bright, as sky is: [H, W, 1] in [0, 1]."""
    luma = shown.mean(2)
    around = cv2.blur(luma, (9, 9))
    uneven = np.sqrt(np.maximum(cv2.blur(luma * luma, (9, 9)) - around * around, 0))
    sky = ((uneven < EVEN) & (around > 90)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(cv2.erode(sky, np.ones((7, 7))), (0, 0), 4)[..., None])


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
