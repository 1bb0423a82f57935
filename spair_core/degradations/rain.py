"""Rain streaks on clean pictures, with their exact mask, drawn from a seeded generator.

A picture gets one of several families of rain, matched to pairs of the sets that such models are
judged on: light streaks of one direction, heavy layers that cross, dense soft rain, broad near
streaks, drizzle. Layers go from far to near: near streaks are longer, broader, brighter and fewer.
`StreakLayers` lays real streaks, taken from pairs, over other pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spair_core.degradations.degradation import Degradation
from spair_core.degradations.lookalikes import add_streak_lookalikes
from spair_core.masks import THRESHOLD, mask_from_pair

Range = tuple[float, float]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Family:
    """One kind of rain; every value is drawn from its range.

    `coverage` is the share of the picture that all streaks together would cover if none overlapped;
    angles are degrees from vertical, lengths, widths and `softness` (of the edges) pixels,
    brightness a share of the range, `taper` the share of a streak over which each end fades.
    """

    layers: tuple[int, int]
    coverage: Range
    angle: Range
    length: Range
    width: Range
    brightness: Range
    softness: Range = (1.0, 1.5)
    taper: Range = (0.1, 0.4)
    angle_spread: float = 3.0
    """Standard deviation of a layer's angles."""
    crossing: float = 0.0
    """Mean angle between the first layer and another; a few cross at far greater ones."""
    variety: float = 0.35
    """Standard deviation of the logarithm of a layer's lengths."""
    screen: float = 0.2
    """Share of pictures whose streaks are blended by screening instead of addition."""


LIGHT = Family(
    layers=(1, 1),
    coverage=(0.03, 0.25),
    angle=(-40, 40),
    length=(18, 80),
    width=(0.8, 2.2),
    brightness=(0.08, 0.45),
    softness=(1.2, 2.2),
    angle_spread=1.5,
)
HEAVY = Family(
    layers=(2, 4),
    coverage=(0.3, 1.8),
    angle=(-25, 25),
    length=(25, 140),
    width=(0.9, 2.4),
    brightness=(0.12, 0.36),
    softness=(1.0, 1.6),
    taper=(0.02, 0.3),
    angle_spread=1.2,
    crossing=7.0,
    screen=0.05,
)
DENSE = Family(
    layers=(2, 3),
    coverage=(0.5, 2.2),
    angle=(-50, 50),
    length=(12, 45),
    width=(0.9, 2.4),
    brightness=(0.05, 0.22),
    softness=(1.2, 2.5),
    taper=(0.2, 0.5),
    screen=0.85,
)
BROAD = Family(
    layers=(1, 3),
    coverage=(0.03, 0.4),
    angle=(-35, 35),
    length=(18, 140),
    width=(0.9, 4.5),
    brightness=(0.1, 0.65),
    softness=(1.0, 3.0),
    taper=(0.15, 0.5),
    crossing=3.0,
    variety=0.5,
    screen=0.6,
)
DRIZZLE = Family(
    layers=(1, 3),
    coverage=(0.03, 0.4),
    angle=(-40, 40),
    length=(6, 24),
    width=(0.7, 1.8),
    brightness=(0.06, 0.32),
    angle_spread=5.0,
)


STEEPEST = 80.0
"""Degrees from the vertical that wind, or speed, turns streaks by at most."""

NEAR = Family(
    layers=(1, 2),
    coverage=(0.02, 0.2),
    angle=(-30, 30),
    length=(15, 90),
    width=(1.5, 6),
    brightness=(0.3, 0.9),
    softness=(1.0, 3.0),
    taper=(0.1, 0.5),
    angle_spread=4.0,
    variety=0.6,
    screen=0.5,
)
"""Close to the camera and lit: few streaks, broad and bright."""

SPARSE = Family(
    layers=(1, 2),
    coverage=(0.001, 0.015),
    angle=(-25, 25),
    length=(5, 40),
    width=(0.8, 3),
    brightness=(0.08, 0.6),
    softness=(1.0, 2.5),
    taper=(0.1, 0.5),
    angle_spread=2.5,
    variety=0.5,
)
"""What a short exposure sees of ordinary rain: some hundred short streaks in a frame."""


@dataclass(frozen=True)
class RainConfig:
    """How often a picture gets which rain. Families are chosen with probability after `weights`."""

    families: tuple[Family, ...] = (LIGHT, HEAVY, DENSE, BROAD, DRIZZLE)
    weights: tuple[float, ...] = (0.25, 0.3, 0.2, 0.15, 0.1)
    dry: float = 0.12
    """Share of pictures that stay as they are."""
    haze: float = 0.12
    """Share of pictures that get a veil as well."""
    haze_strength: float = 0.12
    """The veil's greatest opacity."""
    screen: float | None = None
    """Share of pictures whose streaks are blended by screening; None leaves it to the family."""
    slanted: float = 0.0
    """Share of pictures in wind: streaks of any angle up to `STEEPEST`, whatever their family's."""
    threshold: float = THRESHOLD
    """Difference over which a pixel counts as degraded."""

    def family(self, rng: np.random.Generator) -> Family:
        """That of one picture, or of one scene."""
        shares = np.asarray(self.weights) / sum(self.weights)
        drawn = self.families[rng.choice(len(self.families), p=shares)]
        windy = self.slanted and rng.random() < self.slanted
        return replace(drawn, angle=(-STEEPEST, STEEPEST)) if windy else drawn


LEARNT = RainConfig(
    families=(LIGHT, HEAVY, DENSE, BROAD, DRIZZLE, NEAR, SPARSE),
    weights=(0.26, 0.17, 0.11, 0.12, 0.09, 0.11, 0.14),
    slanted=0.15,
)
"""What is learnt from: wider than what models are judged on."""


def add_rain(
    clean: NDArray[np.uint8], rng: np.random.Generator, config: RainConfig | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """uint8 [H, W, 3] -> the same in rain, and the mask bool [H, W] of its streaks.

    The mask is `mask_from_pair`'s at `config.threshold` between the picture with its streaks and
    without them: a veil, which leaves no pixel clean to draw on, is not in it. The generator's state
    decides everything.
    """
    config = config or RainConfig()
    if rng.random() < config.dry:
        return clean.copy(), np.zeros(clean.shape[:2], dtype=np.bool_)
    family = config.family(rng)
    streaks = draw_streaks((clean.shape[0], clean.shape[1]), rng, family)
    veiled = _veil(clean, rng, config.haze_strength) if rng.random() < config.haze else clean
    screen = rng.random() < (family.screen if config.screen is None else config.screen)
    rainy = _blend(veiled, streaks, screen=screen)
    return rainy, mask_from_pair(rainy, veiled, config.threshold)


def draw_streaks(size: tuple[int, int], rng: np.random.Generator, family: Family) -> Floats:
    """Brightness [H, W] (a share of the range, not clipped) of one picture's streaks."""
    count = int(rng.integers(family.layers[0], family.layers[1] + 1))
    angle, coverage = rng.uniform(*family.angle), rng.uniform(*family.coverage) / count
    total = np.zeros(size, dtype=np.float32)
    for number in range(count):
        nearness = (number + rng.random()) / count
        turned = angle + (rng.laplace(0, family.crossing) if number else 0.0)
        if abs(turned) <= 45:
            total += _draw_layer(size, rng, family, turned, coverage, nearness)
        else:  # streaks are drawn row by row, so those nearer to the horizontal on their side
            total += _draw_layer(size[::-1], rng, family, np.sign(turned) * 90 - turned, coverage, nearness).T
    return total


def _draw_layer(
    size: tuple[int, int],
    rng: np.random.Generator,
    family: Family,
    angle: float,
    coverage: float,
    nearness: float,
) -> Floats:
    def between(values: Range) -> float:
        return values[0] + (values[1] - values[0]) * (nearness + rng.random()) / 2

    length, width, brightness = between(family.length), between(family.width), between(family.brightness)
    margin = length / 2
    area = (size[0] + 2 * margin) * (size[1] + 2 * margin)
    count = max(1, round(coverage * area / (length * max(width, 1.0))))
    angles = np.deg2rad(np.clip(angle + family.angle_spread * rng.standard_normal(count), -60, 60))
    streaks = Streaks(
        centres=rng.uniform((-margin, -margin), (size[0] + margin, size[1] + margin), (count, 2)),
        angles=angles,
        lengths=length * np.exp(family.variety * rng.standard_normal(count)),
        peaks=brightness * rng.uniform(0.5, 1.3, count),
        width=width,
        softness=rng.uniform(*family.softness),
        taper=rng.uniform(*family.taper),
    )
    return streaks.drawn(size)


@dataclass(frozen=True)
class Streaks:
    """One layer: centres [K, 2] (y, x), angles (radians from vertical), lengths and peaks [K]."""

    centres: NDArray[np.float64]
    angles: NDArray[np.float64]
    lengths: NDArray[np.float64]
    peaks: NDArray[np.float64]
    width: float
    softness: float
    taper: float

    def drawn(self, size: tuple[int, int]) -> Floats:
        """Their sum [H, W]: each row of a streak is a box of its width with soft edges."""
        which, rows = self._rows(size[0])
        cosines, slopes = (turn(self.angles).astype(np.float32) for turn in (np.cos, np.tan))
        away = (rows - self.centres[which, 0]).astype(np.float32)
        middles = self.centres[:, 1].astype(np.float32)[which] + away * slopes[which]
        strengths = self._strengths(which, away, cosines)
        reach = int(np.ceil((self.width + self.softness) / 2 / cosines.min()))
        kept = (middles > -reach) & (middles < size[1] - 1 + reach)
        which, rows, middles, strengths = which[kept], rows[kept], middles[kept], strengths[kept]
        stride = size[1] + 4 * reach  # columns beyond the edges take what falls outside
        starts = np.floor(middles).astype(np.int64)
        places = rows * stride + starts + 2 * reach
        offsets, squeeze = starts - middles, cosines[which]
        total = np.zeros(size[0] * stride)
        for step in range(1 - reach, reach + 1):
            profile = self._profile(np.abs(offsets + np.float32(step)) * squeeze)
            total += np.bincount(places + step, strengths * profile, total.size)
        return total.reshape(size[0], stride)[:, 2 * reach : 2 * reach + size[1]].astype(np.float32)

    def _rows(self, height: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For every row of every streak within the picture: which streak, and which row."""
        half = self.lengths / 2 * np.cos(self.angles)
        first = np.maximum(np.ceil(self.centres[:, 0] - half), 0).astype(np.int64)
        last = np.minimum(np.floor(self.centres[:, 0] + half), height - 1).astype(np.int64)
        counts = np.maximum(last - first + 1, 0)
        which = np.repeat(np.arange(counts.size), counts)
        return which, np.arange(which.size) + np.repeat(first - np.cumsum(counts) + counts, counts)

    def _strengths(self, which: NDArray[np.int64], away: Floats, cosines: Floats) -> Floats:
        half = (self.lengths / 2).astype(np.float32) * cosines
        fade = np.maximum(self.taper * 2 * half, 1)
        inside = np.clip((half[which] + 0.5 - np.abs(away)) / fade[which], 0, 1)
        return np.asarray(self.peaks.astype(np.float32)[which] * inside)

    def _profile(self, distance: Floats) -> Floats:
        """A box of the streak's width, blurred by a box of the softness."""
        edge = np.float32((self.width + self.softness) / 2)
        return np.clip((edge - distance) / np.float32(self.softness), 0, min(1.0, self.width / self.softness))


def _veil(clean: NDArray[np.uint8], rng: np.random.Generator, strength: float) -> NDArray[np.uint8]:
    opacity, light = rng.uniform(0, strength), 255 * rng.uniform(0.6, 0.95)
    # A table of 256 values does for every pixel.
    table = np.round(np.arange(256) * (1 - opacity) + light * opacity).astype(np.uint8)
    return np.asarray(table[clean])


def _blend(clean: NDArray[np.uint8], streaks: Floats, *, screen: bool) -> NDArray[np.uint8]:
    light = (np.minimum(streaks, 1) * 255)[..., None]
    picture = clean.astype(np.float32)
    picture += light * (1 - picture / 255) if screen else light
    return np.asarray((np.minimum(picture, 255) + 0.5).astype(np.uint8))


class StreakLayers:
    """Real streak layers, taken from pairs: what the rain added, max over RGB of degraded - clean."""

    def __init__(self, pairs: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
        """`pairs` of (degraded, clean), uint8 [H, W, 3]. Raises ValueError where there are none."""
        self.layers = [_extracted(degraded, clean) for degraded, clean in pairs]
        if not self.layers:
            raise ValueError("no pairs to take streak layers from")

    def add(
        self, clean: NDArray[np.uint8], rng: np.random.Generator, threshold: float = THRESHOLD
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Like `add_rain`, with a layer drawn at random: flipped, shifted, scaled, dimmed or brightened."""
        layer = self.layers[rng.integers(len(self.layers))]
        layer = layer[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
        scale, gain = rng.uniform(0.75, 1.4), np.float32(rng.uniform(0.6, 1.2) / 255)
        height, width = clean.shape[:2]
        # Mirrored over its edges where it is smaller than the picture.
        rows = _mirrored(layer.shape[0], round(height / scale), rng)
        columns = _mirrored(layer.shape[1], round(width / scale), rng)
        piece = Image.fromarray(layer[np.ix_(rows, columns)])
        streaks = np.asarray(piece.resize((width, height), Image.Resampling.BICUBIC))
        rainy = _blend(clean, streaks.astype(np.float32) * gain, screen=False)
        return rainy, mask_from_pair(rainy, clean, threshold)


def _extracted(degraded: NDArray[np.uint8], clean: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The layer uint8 [H, W]. Faint speckle, which is what JPEG adds, is faded out; streaks stay sharp."""
    added = np.maximum(degraded.astype(np.int16) - clean, 0).max(axis=2).astype(np.float32)
    padded = np.pad(added, 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16
    return np.asarray((added * np.clip((smooth - 3) / 5, 0, 1)).round().astype(np.uint8))


def _mirrored(length: int, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    start = int(rng.integers(0, max(length - wanted, 0) + 1))
    place = (start + np.arange(max(wanted, 1))) % (2 * length)
    return np.asarray(np.minimum(place, 2 * length - 1 - place))


def rain_over(
    frames: Sequence[NDArray[np.uint8]], rng: np.random.Generator, config: RainConfig | None = None
) -> list[NDArray[np.uint8]]:
    """Frames uint8 [H, W, 3] of one scene in one rain, whose streaks are new in each."""
    config = config or LEARNT
    family = config.family(rng)
    angle, coverage = rng.uniform(*family.angle), rng.uniform(*family.coverage)
    steady = replace(family, angle=(angle - 1, angle + 1), coverage=(0.9 * coverage, 1.1 * coverage))
    screen = rng.random() < (family.screen if config.screen is None else config.screen)
    return [
        _blend(frame, draw_streaks((frame.shape[0], frame.shape[1]), rng, steady), screen=screen)
        for frame in frames
    ]


RAIN = Degradation(
    "rain",
    "Y",
    lambda clean, rng, dry, threshold: add_rain(clean, rng, replace(LEARNT, dry=dry, threshold=threshold)),
    rain_over,
    add_streak_lookalikes,
    sized=True,
)
