"""Rain streaks on clean pictures, with their exact mask, drawn from a seeded generator.

A picture gets one of several families of rain, after the sets that such models are judged on:
sparse streaks of one direction, dense layers that cross, long broad streaks, faint drizzle. A
layer's streaks share an angle (with a little jitter), and each has its own length, width and
brightness. `StreakLayers` lays real streaks, taken from pairs, over other pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spair_core.masks import THRESHOLD, mask_from_pair

Range = tuple[float, float]
STEP = 0.7
"""Distance in pixels between the points of which a streak is drawn."""


@dataclass(frozen=True)
class Family:
    """One kind of rain; every value is drawn uniformly from its range.

    `coverage` is the share of the picture that all streaks together would cover if none overlapped;
    angles are degrees from vertical, lengths and widths pixels, brightness a share of the range.
    """

    layers: tuple[int, int]
    coverage: Range
    angle: Range
    length: Range
    width: Range
    brightness: Range
    angle_spread: float = 3.0
    crossing: float = 0.0


SPARSE = Family((1, 1), (0.02, 0.25), (-40, 40), (8, 40), (0.8, 2.2), (0.12, 0.7))
HEAVY = Family((2, 5), (0.3, 1.2), (-45, 45), (12, 70), (0.8, 2.6), (0.1, 0.6), crossing=18.0)
BROAD = Family((1, 3), (0.1, 0.6), (-45, 45), (15, 90), (1.5, 4.5), (0.08, 0.5), crossing=8.0)
DRIZZLE = Family((1, 3), (0.03, 0.4), (-30, 30), (4, 18), (0.6, 1.4), (0.06, 0.3), angle_spread=6.0)


@dataclass(frozen=True)
class RainConfig:
    """How often a picture gets which rain. Families are chosen with probability after `weights`."""

    families: tuple[Family, ...] = (SPARSE, HEAVY, BROAD, DRIZZLE)
    weights: tuple[float, ...] = (0.35, 0.3, 0.2, 0.15)
    dry: float = 0.08
    """Share of pictures that stay as they are."""
    haze: float = 0.12
    """Share of pictures that get a veil as well."""
    haze_strength: float = 0.12
    """The veil's greatest opacity."""
    screen: float = 0.3
    """Share of pictures whose streaks are blended by screening instead of addition."""
    threshold: float = THRESHOLD
    """Difference over which a pixel counts as degraded."""


def add_rain(
    clean: NDArray[np.uint8], rng: np.random.Generator, config: RainConfig | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """uint8 [H, W, 3] -> the same in rain, and the mask bool [H, W] of pixels that it changed.

    The mask is `mask_from_pair`'s at `config.threshold`. The generator's state decides everything.
    """
    config = config or RainConfig()
    if rng.random() < config.dry:
        return clean.copy(), np.zeros(clean.shape[:2], dtype=np.bool_)
    shares = np.asarray(config.weights) / sum(config.weights)
    family = config.families[rng.choice(len(config.families), p=shares)]
    streaks = draw_streaks((clean.shape[0], clean.shape[1]), rng, family)
    haze = rng.uniform(0, config.haze_strength) if rng.random() < config.haze else 0.0
    rainy = _blend(clean, streaks, rng, haze=haze, screen=rng.random() < config.screen)
    return rainy, mask_from_pair(rainy, clean, config.threshold)


def draw_streaks(size: tuple[int, int], rng: np.random.Generator, family: Family) -> NDArray[np.float32]:
    """Brightness [H, W] (a share of the range, not clipped) of one picture's streaks."""
    count = int(rng.integers(family.layers[0], family.layers[1] + 1))
    angle, coverage = rng.uniform(*family.angle), rng.uniform(*family.coverage) / count
    total = np.zeros(size, dtype=np.float32)
    for _ in range(count):
        turned = angle + rng.uniform(-family.crossing, family.crossing)
        total += _draw_layer(size, rng, family, turned, coverage)
    return total


def _draw_layer(
    size: tuple[int, int], rng: np.random.Generator, family: Family, angle: float, coverage: float
) -> NDArray[np.float32]:
    # A layer is at one distance: its streaks are alike, near ones long, broad and few.
    length, width = rng.uniform(*family.length), rng.uniform(*family.width)
    brightness = rng.uniform(*family.brightness)
    margin = length / 2
    area = (size[0] + 2 * margin) * (size[1] + 2 * margin)
    count = max(1, int(coverage * area / (length * max(width, 1.0))))
    lengths = length * rng.uniform(0.5, 1.5, count)
    angles = np.deg2rad(angle + family.angle_spread * rng.standard_normal(count))
    along = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    centres = rng.uniform((-margin, -margin), (size[0] + margin, size[1] + margin), (count, 2))
    points = np.arange(-0.75 * length, 0.75 * length + STEP, STEP)
    inside = np.clip((lengths[:, None] / 2 - np.abs(points)) / (0.2 * lengths[:, None]), 0, 1)
    offsets, profile = _cross_section(width)
    peak = brightness * rng.uniform(0.5, 1.3, count)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    at = (
        centres[:, None, None]
        + points[None, :, None, None] * along[:, None, None]
        + offsets[None, None, :, None] * across[:, None, None]
    )
    strength = (peak[:, None] * inside)[:, :, None] * profile
    return _splat(at.reshape(-1, 2), strength.reshape(-1), size)


def _cross_section(width: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Offsets across a streak and the strength of a point there, so that the middle adds up to one."""
    reach = max(width, 1.0) - 0.5
    count = 1 + 2 * int(np.ceil(reach / STEP / 2)) if width > 1 else 1
    offsets = np.asarray((np.arange(count) - count // 2) * STEP, dtype=np.float64)
    profile = np.exp(-0.5 * (offsets / (0.5 * width)) ** 2)
    spacing = STEP if count > 1 else 1.2
    return offsets, np.asarray(profile * STEP * spacing, dtype=np.float64)


def _splat(
    at: NDArray[np.float64], strength: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Points [K, 2] (y, x) spread over their four pixels."""
    height, width = size
    lit = (strength > 0) & (at > -1).all(1) & (at[:, 0] < height) & (at[:, 1] < width)
    at, strength = at[lit], strength[lit]
    corner = np.floor(at).astype(np.int64)
    part = at - corner
    # One pixel of margin on each side takes what falls outside.
    stride = width + 2
    flat = (corner[:, 0] + 1) * stride + corner[:, 1] + 1
    total = np.zeros((height + 2) * stride)
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1])
            total += np.bincount(flat + dy * stride + dx, strength * share, total.size)
    return total.reshape(height + 2, stride)[1:-1, 1:-1].astype(np.float32)


def _blend(
    clean: NDArray[np.uint8],
    streaks: NDArray[np.float32],
    rng: np.random.Generator,
    *,
    haze: float,
    screen: bool,
) -> NDArray[np.uint8]:
    picture = clean.astype(np.float32) / 255
    if haze:
        picture += haze * (np.float32(rng.uniform(0.6, 0.95)) - picture)
    light = np.minimum(streaks, 1)[..., None] * rng.uniform(0.9, 1.0, 3).astype(np.float32)
    picture += light * (1 - picture) if screen else light
    return np.asarray((np.clip(picture, 0, 1) * 255).round(), dtype=np.uint8)


class StreakLayers:
    """Real streak layers, taken from pairs: what the rain added, max over RGB of degraded - clean."""

    def __init__(self, pairs: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
        """`pairs` of (degraded, clean), uint8 [H, W, 3]. Raises ValueError where there are none."""
        self.layers = [np.maximum(d.astype(np.int16) - c, 0).max(axis=2).astype(np.uint8) for d, c in pairs]
        if not self.layers:
            raise ValueError("no pairs to take streak layers from")

    def add(
        self, clean: NDArray[np.uint8], rng: np.random.Generator, threshold: float = THRESHOLD
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Like `add_rain`, with a layer drawn at random: flipped, shifted, dimmed or brightened."""
        layer = self.layers[rng.integers(len(self.layers))]
        layer = layer[:, :: rng.choice([-1, 1])]
        height, width = clean.shape[:2]
        # Mirrored over its edges where it is smaller than the picture.
        rows = _mirrored(layer.shape[0], height, rng)
        columns = _mirrored(layer.shape[1], width, rng)
        streaks = layer[np.ix_(rows, columns)].astype(np.float32) / 255 * np.float32(rng.uniform(0.6, 1.2))
        rainy = _blend(clean, streaks, rng, haze=0.0, screen=False)
        return rainy, mask_from_pair(rainy, clean, threshold)


def _mirrored(length: int, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    start = int(rng.integers(0, max(length - wanted, 0) + 1))
    place = (start + np.arange(wanted)) % (2 * length)
    return np.asarray(np.minimum(place, 2 * length - 1 - place))
