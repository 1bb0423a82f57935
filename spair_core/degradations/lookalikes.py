"""What looks like rain or drops and is none, put into clean pictures, seeded: fronts, branches, clouds.

The bars of a front of windows, or of a fence, are thin and upright as streaks are, and what passes the
camera is elsewhere in each frame, as streaks are. Light comes through the gaps of branches; small clouds
are bright and soft, as drops out of focus are. They are put there before a picture is degraded or left
clean, and are in no mask (`lookalike` of rain and of raindrops).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
NEAREST = 0.1
"""Distance, a share of that at which a front is looked at, at which what passes is lost from sight."""
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


@dataclass(frozen=True)
class FrontConfig:
    """How often fronts of windows, fences and posts stand beside the road, and which; every value is drawn
    from its range, and of a `Range` of sizes small ones are as frequent as large ones."""

    fronted: float = 0.15
    """Share of scenes that have one."""
    apart: Range = (5.0, 90.0)
    """Pixels between its bars, where it is looked at; there as well are"""
    bar: Range = (1.0, 8.0)
    """the pixels of a bar's width,"""
    high: Range = (0.25, 1.5)
    """its height, a share of the picture's,"""
    speed: Range = (0.5, 16.0)
    """and the pixels that it comes nearer from frame to frame."""
    stretch: Range = (1.5, 12.0)
    """How many times as far away as that place it ends."""
    panes: float = 0.6
    """Share with something behind the bars; through the others the scene is seen."""
    leaning: float = 0.2
    """Share whose bars are not upright."""


def add_drop_lookalikes(clean: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], some pictures with what looks like drops. The generator's state decides everything."""
    return add_branches(add_clouds(clean, rng), rng)


def add_streak_lookalikes(clean: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], some pictures with what looks like streaks. The generator decides everything."""
    return pass_front([clean], [0], rng)[0]


def pass_front(
    frames: Sequence[NDArray[np.uint8]],
    times: Sequence[float],
    rng: np.random.Generator,
    config: FrontConfig | None = None,
) -> list[NDArray[np.uint8]]:
    """Frames uint8 [H, W, 3], seen at `times` (in frames), some with a front that the camera passes.

    The generator's state decides everything.
    """
    config = config or FrontConfig()
    if rng.random() >= config.fronted:
        return list(frames)
    front = _Front.drawn((frames[0].shape[0], frames[0].shape[1]), rng, config)
    return [front.over(frame, time) for frame, time in zip(frames, times, strict=True)]


@dataclass(frozen=True)
class _Front:
    """A row of bars along a straight road, seen by a pinhole camera: pixels, and colours of 0 to 255.

    What is at (x, y) from the vanishing point where the front is looked at, at distance 1, is there at
    (x, y) / z at distance z.
    """

    vanishing: tuple[float, float]
    aside: float
    """x of the front,"""
    heights: Range
    """y of its lower and its upper edge."""
    stretch: Range
    """Distances from where to where it goes on, at time 0."""
    speed: float
    """By how much they become less in a frame."""
    apart: float
    """Distance from bar to bar,"""
    bar: float
    """by which a bar is wide,"""
    lean: float
    """and by which its head is before its foot."""
    rails: tuple[float, ...]
    """y of what lies across the bars."""
    panes: NDArray[np.float64] | None
    """Colours [k, 3] of what is between bars, in turn."""
    paint: NDArray[np.float64]
    """Colour [3] of the bars."""
    defocus: float

    @staticmethod
    def drawn(size: tuple[int, int], rng: np.random.Generator, config: FrontConfig) -> _Front:
        height, width = size

        def any_size(sizes: Range) -> float:
            return float(np.exp(rng.uniform(*np.log(sizes))))

        vanishing = width * rng.uniform(-0.8, 1.8), height * rng.uniform(0.1, 0.9)
        side = 1 if rng.random() < 1 - vanishing[0] / width else -1
        edge = width if side > 0 else 0
        place = edge - side * width * rng.uniform(0, 0.7)
        aside = side * max(abs(place - vanishing[0]), 0.1 * width)
        foot = height * rng.uniform(0.2, 1.1) - vanishing[1]
        heights = foot, foot - height * any_size(config.high)
        apart, bar = any_size(config.apart), any_size(config.bar)
        nearest = rng.uniform(0.3, 0.9)
        dark = rng.random() < 0.75
        light, shade = rng.uniform(120, 255), rng.uniform(10, 110)
        tints = rng.uniform(0.88, 1.08, (2, 3))
        panes = (shade if dark else light) * tints[0] * rng.normal(1, rng.uniform(0, 0.3), (16, 1))
        return _Front(
            vanishing,
            aside,
            heights,
            (nearest, any_size(config.stretch)),
            any_size(config.speed) / abs(aside),
            apart / abs(aside),
            min(bar, apart / 2) / abs(aside),
            apart * rng.uniform(-2, 2) / abs(aside) if rng.random() < config.leaning else 0.0,
            tuple(rng.uniform(heights[1], heights[0], int(rng.integers(0, 4)))),
            panes if rng.random() < config.panes else None,
            (light if dark else shade) * tints[1],
            rng.uniform(0.3, 1.1),
        )

    def over(self, frame: NDArray[np.uint8], time: float) -> NDArray[np.uint8]:
        """The frame uint8 [H, W, 3] with the front before it."""
        height, width = frame.shape[:2]
        painted = np.zeros((2 * height, 2 * width, 4), dtype=np.uint8)  # the last is what it hides
        for corners, colour in self._shapes(self.speed * time):
            red, green, blue = np.clip(colour, 0, 255)
            cv2.fillPoly(painted, [self._seen(corners)], (red, green, blue, 255), cv2.LINE_8, 3)
        small = cv2.resize(painted, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        soft = cv2.GaussianBlur(small, (0, 0), self.defocus)
        shown = frame * (1 - soft[..., 3:] / 255) + soft[..., :3]
        return np.asarray(np.clip(np.rint(shown), 0, 255), dtype=np.uint8)

    def _shapes(self, gone: float) -> Iterator[tuple[list[tuple[float, float]], NDArray[np.float64]]]:
        """Corners (z, y) and colour, those behind first, for a camera `gone` farther on."""
        foot, head = self.heights
        # Nearer ones are beside the camera; farther ones stand closer than three pixels.
        near = max(self.stretch[0] - gone, NEAREST)
        far = min(self.stretch[1] - gone, float(np.sqrt(abs(self.aside) * self.apart / 3)))
        first, last = (int(np.ceil((edge + gone) / self.apart)) for edge in (near, far))
        bars = [(k, k * self.apart - gone) for k in range(first, last)]
        if self.panes is not None:
            for k, z in bars:
                yield _across(z, z + self.apart, foot, head), self.panes[k % len(self.panes)]
        for _, z in bars:
            top = max(z + self.lean, NEAREST)
            yield [(z, foot), (z + self.bar, foot), (top + self.bar, head), (top, head)], self.paint
        if near < far:
            for rail in self.rails:
                yield _across(near, far, rail, rail + self.bar * abs(self.aside)), self.paint

    def _seen(self, corners: list[tuple[float, float]]) -> NDArray[np.int32]:
        """Corners (z, y) as eighths of the pixels of a picture of twice the size."""
        z, y = np.array(corners).T
        seen = np.stack([self.vanishing[0] + self.aside / z, self.vanishing[1] + y / z], 1)
        return np.asarray((16 * seen).round(), dtype=np.int32)


def _across(start: float, end: float, foot: float, head: float) -> list[tuple[float, float]]:
    return [(start, foot), (end, foot), (end, head), (start, head)]


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
