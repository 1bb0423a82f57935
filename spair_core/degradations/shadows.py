"""Soft cast shadows on clean pictures, with their exact mask, drawn from a seeded generator.

A shadow is a caster's silhouette (a blob, straight edges, foliage, or a given one), softened by a
penumbra that widens across the picture, as one does with the distance to its caster. In the umbra
the sun's light is gone and the sky's, which is bluer, remains: a factor per channel in linear light.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from spair_core.degradations.degradation import Degradation
from spair_core.light import coded, linear
from spair_core.masks import THRESHOLD, mask_from_pair

Range = tuple[float, float]
Floats = NDArray[np.float32]
Bits = NDArray[np.bool_]
PENUMBRAE = 4
"""Widths between which a penumbra's width is interpolated."""


@dataclass(frozen=True)
class ShadowConfig:
    """How often a picture gets which shadow; every value is drawn from its range."""

    weights: tuple[float, float, float] = (0.35, 0.35, 0.3)
    """Shares of blobs, of straight edges (walls, posts) and of foliage."""
    coverage: Range = (0.08, 0.6)
    """Share of the picture that a silhouette covers."""
    remaining: Range = (0.12, 0.6)
    """Share of the light that remains in the umbra."""
    blueness: Range = (0.0, 0.3)
    """By which share more of the blue remains than of the green, and less of the red."""
    unevenness: float = 0.12
    """Greatest deviation of the remaining light within a shadow."""
    penumbra: Range = (0.7, 9.0)
    """Standard deviation of an edge's blur, in pixels, from a shadow's sharpest edges to its softest."""
    dry: float = 0.12
    """Share of pictures that stay as they are."""
    threshold: float = THRESHOLD
    """Difference over which a pixel counts as degraded."""


def add_shadow(
    clean: NDArray[np.uint8], rng: np.random.Generator, config: ShadowConfig | None = None
) -> tuple[NDArray[np.uint8], Bits]:
    """uint8 [H, W, 3] -> the same with a cast shadow, and its mask bool [H, W].

    The mask is `mask_from_pair`'s at `config.threshold`, umbra and penumbra alike: a shadow on what
    is black already is in no mask. The generator's state decides everything.
    """
    config = config or ShadowConfig()
    if rng.random() < config.dry:
        return clean.copy(), np.zeros(clean.shape[:2], dtype=np.bool_)
    shares = np.asarray(config.weights) / sum(config.weights)
    draw = (_blob, _edges, _foliage)[rng.choice(3, p=shares)]
    return _cast(
        clean, draw((clean.shape[0], clean.shape[1]), rng, rng.uniform(*config.coverage)), rng, config
    )


class ShadowMasks:
    """Silhouettes of real shadows."""

    def __init__(self, masks: Iterable[Bits], config: ShadowConfig | None = None) -> None:
        """`masks` bool [H, W], True = in shadow; `config` says how they are cast. Raises ValueError where
        there are none."""
        self.masks, self.config = list(masks), config or ShadowConfig()
        if not self.masks:
            raise ValueError("no masks to take shadows' shapes from")

    def add(
        self, clean: NDArray[np.uint8], rng: np.random.Generator, threshold: float = THRESHOLD
    ) -> tuple[NDArray[np.uint8], Bits]:
        """Like `add_shadow`, with a mask drawn at random, flipped and a part of it stretched over the
        picture; none of the pictures stays as it is but where that part is empty."""
        mask = self.masks[rng.integers(len(self.masks))]
        mask = mask[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
        height, width = (side * rng.uniform(0.5, 1) for side in mask.shape)
        top, left = rng.uniform(0, mask.shape[0] - height), rng.uniform(0, mask.shape[1] - width)
        piece = Image.fromarray(mask.astype(np.uint8) * 255).resize(
            (clean.shape[1], clean.shape[0]),
            Image.Resampling.BILINEAR,
            (left, top, left + width, top + height),
        )
        return _cast(clean, np.asarray(piece) > 127, rng, replace(self.config, threshold=threshold))


def _cast(
    clean: NDArray[np.uint8], silhouette: Bits, rng: np.random.Generator, config: ShadowConfig
) -> tuple[NDArray[np.uint8], Bits]:
    height, width = silhouette.shape
    hidden = _softened(silhouette, rng, config.penumbra)[..., None]
    remaining, blueness = rng.uniform(*config.remaining), rng.uniform(*config.blueness)
    colour = np.array([1 - blueness, 1, 1 + blueness], dtype=np.float32) * np.float32(remaining)
    evenness = 1 + np.float32(config.unevenness) * _waves((height, width), rng, max(height, width) / 2)
    shadowed = coded(linear(clean) * (1 - hidden * (1 - np.clip(colour * evenness[..., None], 0, 1))))
    return shadowed, mask_from_pair(shadowed, clean, config.threshold)


def _softened(silhouette: Bits, rng: np.random.Generator, penumbra: Range) -> Floats:
    """Share [H, W] of the sun that is hidden: the silhouette, blurred more and more along a direction."""
    sharpest, softest = np.exp(np.sort(rng.uniform(np.log(penumbra[0]), np.log(penumbra[1]), 2)))
    image = Image.fromarray(silhouette.astype(np.uint8) * 255)
    place = (PENUMBRAE - 1) * _ramp(silhouette.shape, rng.uniform(0, 2 * np.pi))
    hidden = np.zeros(silhouette.shape, dtype=np.float32)
    for number, width in enumerate(np.linspace(sharpest, softest, PENUMBRAE)):
        blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(float(width))))
        hidden += np.maximum(1 - np.abs(place - number), 0) * blurred
    return np.asarray(hidden / 255)


def _ramp(size: tuple[int, ...], direction: float) -> Floats:
    """A plane [H, W] that rises from 0 in one corner to 1 in another."""
    down, right = np.sin(direction), np.cos(direction)
    rows, columns = (np.linspace(-1, 1, side, dtype=np.float32) for side in size)
    plane = rows[:, None] * np.float32(down) + columns * np.float32(right)
    return np.asarray((1 + plane / np.float32(abs(down) + abs(right))) / 2)


def _waves(size: tuple[int, int], rng: np.random.Generator, wavelength: float) -> Floats:
    """Smooth noise [H, W] within about [-1, 1]."""
    cells = [int(np.ceil(side / wavelength)) + 3 for side in size]
    coarse = Image.fromarray(rng.uniform(-1, 1, cells).astype(np.float32))
    top, left = rng.uniform(1, 2, 2)
    box = (left, top, left + size[1] / wavelength, top + size[0] / wavelength)
    return np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC, box))


def _covering(field: Floats, coverage: float) -> Bits:
    """The given share of the pixels: those where the field is highest."""
    return np.asarray(field >= np.quantile(field, 1 - coverage))


def _blob(size: tuple[int, int], rng: np.random.Generator, coverage: float) -> Bits:
    wavelength = max(size) * rng.uniform(0.25, 0.8)
    field = _waves(size, rng, wavelength) + rng.uniform(0, 0.3) * _waves(size, rng, wavelength / 4)
    return _covering(field, coverage)


def _edges(size: tuple[int, int], rng: np.random.Generator, coverage: float) -> Bits:
    """A skyline of roofs, or posts beside one another, at any angle."""
    heading = rng.uniform(0, 2 * np.pi)
    axes = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
    image = Image.new("1", size[::-1])
    for shape in (_posts if rng.random() < 0.4 else _roofs)(size, rng, coverage):
        corners = shape @ axes + np.array(size[::-1]) / 2
        ImageDraw.Draw(image).polygon([(float(x), float(y)) for x, y in corners], fill=1)
    return np.asarray(image)


def _posts(size: tuple[int, int], rng: np.random.Generator, coverage: float) -> list[NDArray[np.float64]]:
    """Outlines [4, 2] of one to four bars, around the origin."""
    count, reach = int(rng.integers(1, 5)), float(np.hypot(*size))
    width = coverage * min(size) / count
    middles = min(size) * rng.uniform(0.6, 1) * ((np.arange(count) + rng.uniform(0.2, 0.8)) / count - 0.5)
    tops = rng.uniform(-0.4, 0.5, count) * min(size)
    bar = np.array([[-0.5, 0], [0.5, 0], [0.5, 1], [-0.5, 1]])
    return [
        bar * (width, reach - top) + (middle, top - 0.3 * min(size))
        for middle, top in zip(middles, tops, strict=True)
    ]


def _roofs(size: tuple[int, int], rng: np.random.Generator, coverage: float) -> list[NDArray[np.float64]]:
    """The outline of houses that fill what is below them, around the origin."""
    count, reach = int(rng.integers(1, 5)), float(np.hypot(*size))
    walls = np.concatenate([[-reach], np.sort(rng.uniform(-0.5, 0.5, count - 1)) * max(size), [reach]])
    level = 0.5 - coverage + rng.uniform(-0.2, 0.2, count)
    slant = rng.uniform(-0.2, 0.2, count) * (rng.random(count) < 0.5)
    tops = np.stack([level - slant, level + slant], 1).ravel() * min(size)
    outline = np.stack([np.repeat(walls, 2)[1:-1], tops], 1)
    return [np.concatenate([outline, [[reach, 2 * reach], [-reach, 2 * reach]]])]


def _foliage(size: tuple[int, int], rng: np.random.Generator, coverage: float) -> Bits:
    """Leaves in clumps, with the sun through their gaps."""
    leaf = rng.uniform(5, 16)
    field = _waves(size, rng, leaf) + 0.6 * _waves(size, rng, leaf / 2)
    return _covering(
        field + rng.uniform(0.8, 1.8) * _waves(size, rng, max(size) / rng.uniform(1.5, 4)), coverage
    )


SHADOW = Degradation(
    "shadow",
    "Lab",
    lambda clean, rng, dry, threshold: add_shadow(clean, rng, ShadowConfig(dry=dry, threshold=threshold)),
)
