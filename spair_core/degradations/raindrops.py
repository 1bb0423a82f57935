"""Raindrops on a windscreen before clean pictures, with their exact mask, from a seeded generator.

Drops are domes of water, merged where they touch. Light is bent by the slope of their surface: a drop
shows the scene upside down in a wide angle, with the brighter sky below, and darkens towards its rim.
The camera looks past them, so they are out of focus: their light and their cover are blurred by the
disc of confusion, and what they leave of the scene shows through. Glass is often misted as well: water
too fine to be seen as drops mixes in light from all around, which lifts the dark and dims the bright.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spair_core.degradations.degradation import Degradation
from spair_core.degradations.lookalikes import add_drop_lookalikes
from spair_core.light import coded, linear
from spair_core.masks import THRESHOLD, mask_from_pair

Range = tuple[float, float]
Floats = NDArray[np.float32]
SKY = np.array([0.9, 0.97, 1.0], dtype=np.float32)
"""Colour of the sky beyond a picture, where nothing in the picture is brighter."""
FAR = 0.5
"""View from which drops show all of the sky beyond a picture that they can."""
CLEAR = 1 / 512
"""Cover below which glass counts as dry."""


@dataclass(frozen=True)
class DropFamily:
    """One kind of drops; every value is drawn from its range, lengths in pixels."""

    coverage: Range
    """Share of the picture that all drops together would cover if none overlapped."""
    radius: Range
    """Typical radius of a picture's drops."""
    defocus: Range
    """Radius of the disc of confusion."""
    variety: float = 0.35
    """Standard deviation of the logarithm of a picture's radii."""
    lumps: tuple[int, int] = (0, 3)
    """Lumps that a drop has beside its body."""
    running: float = 0.04
    """Share of drops that ran and left a trail of droplets above them."""
    view: Range = (0.5, 1.2)
    """How far from a drop the scene at its rim is, as a share of the picture's longer side: flat ones
    bend light little."""


BEADS = DropFamily(coverage=(0.05, 0.55), radius=(1.5, 8), defocus=(0.4, 1.2), lumps=(0, 2), running=0.02)
SPATTER = DropFamily(coverage=(0.05, 0.4), radius=(2.5, 7), defocus=(0.8, 4), lumps=(0, 2), running=0.01)
DROPS = DropFamily(coverage=(0.1, 0.5), radius=(7, 20), defocus=(1.5, 8))
LARGE = DropFamily(coverage=(0.1, 0.5), radius=(18, 40), defocus=(3, 12), lumps=(1, 4), running=0.08)
FLAT = DropFamily(coverage=(0.1, 0.5), radius=(12, 60), defocus=(4, 18), lumps=(1, 4), view=(0.03, 0.5))
"""Water that spread on the glass: faint before what is alike all around, as a road is."""


@dataclass(frozen=True)
class RaindropConfig:
    """How often a picture gets which drops. Families are chosen with probability after `weights`."""

    families: tuple[DropFamily, ...] = (SPATTER, DROPS, LARGE, FLAT)
    weights: tuple[float, ...] = (0.25, 0.35, 0.2, 0.2)
    sky: Range = (0.25, 0.85)
    """Light of the sky beyond the picture, a share of the greatest."""
    overcast: Range = (0.05, 0.45)
    """Share of a drop's light that comes from that sky; in its lower half it is more."""
    rim: Range = (0.1, 0.6)
    """Share of the light that is lost at the rim."""
    sunny: float = 0.25
    """Share of pictures whose drops glint."""
    misted: float = 0.5
    """Share of wet pictures whose glass is misted as well."""
    mist: Range = (0.1, 0.6)
    """Share of the light that comes from all around where the mist is densest."""
    dry: float = 0.12
    """Share of pictures that stay as they are."""
    threshold: float = THRESHOLD
    """Difference over which a pixel counts as degraded."""


ON_WINDSCREENS = RaindropConfig(
    families=(BEADS, SPATTER, DROPS, LARGE, FLAT),
    weights=(0.36, 0.17, 0.19, 0.13, 0.15),
    overcast=(0.05, 0.65),
    rim=(0.15, 0.75),
    misted=0.25,
)
"""Before a dashcam: small and nearly in focus as well as large and soft."""


def add_raindrops(
    clean: NDArray[np.uint8], rng: np.random.Generator, config: RaindropConfig | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """uint8 [H, W, 3] -> the same behind wet glass, and the mask bool [H, W] of its water.

    The mask is `mask_from_pair`'s at `config.threshold`: of a drop, what can be seen. A drop that
    shows sky before sky takes nothing away, and pairs from real glass, which have no other mask, are
    marked the same way. The generator's state decides everything.
    """
    config = config or RaindropConfig()
    if rng.random() < config.dry:
        return clean.copy(), np.zeros(clean.shape[:2], dtype=np.bool_)
    dropped = _WetGlass.drawn((clean.shape[0], clean.shape[1]), rng, config).before(clean)
    return dropped, mask_from_pair(dropped, clean, config.threshold)


def draw_domes(size: tuple[int, int], rng: np.random.Generator, family: DropFamily) -> Domes:
    """The drops of one picture of `size` (height, width), those that hang over its edges included."""
    typical = rng.uniform(*family.radius)
    margin = 2 * typical
    area = (size[0] + 2 * margin) * (size[1] + 2 * margin)
    mean = np.pi * typical**2 * np.exp(2 * family.variety**2)
    count = max(1, round(rng.uniform(*family.coverage) * area / mean))
    radii = typical * np.exp(np.clip(family.variety * rng.standard_normal(count), -1.2, 1.0))
    centres = rng.uniform((-margin, -margin), (size[0] + margin, size[1] + margin), (count, 2))
    parts = [(centres, radii)]
    lumps = rng.integers(family.lumps[0], family.lumps[1] + 1, count)
    body = np.repeat(np.arange(count), lumps)
    turns = rng.uniform(0, 2 * np.pi, body.size)
    away = radii[body] * rng.uniform(0.4, 1.0, body.size)
    # Water hangs: lumps spread more along the vertical.
    offsets = away[:, None] * np.stack([1.2 * np.sin(turns), 0.8 * np.cos(turns)], 1)
    parts.append((centres[body] + offsets, radii[body] * rng.uniform(0.35, 0.8, body.size)))
    parts += [_trail(centres[k], radii[k], rng) for k in np.flatnonzero(rng.random(count) < family.running)]
    return Domes(np.concatenate([c for c, _ in parts]), np.concatenate([r for _, r in parts]))


def _trail(
    centre: NDArray[np.float64], radius: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Droplets left above a drop that ran, smaller and sparser with the distance."""
    count = int(rng.integers(6, 16))
    rise = radius * (0.8 + np.cumsum(rng.uniform(0.25, 0.8, count)))
    drift = radius * np.cumsum(rng.normal(0, 0.12, count))
    shrink = np.linspace(0.55, 0.15, count) * rng.uniform(0.6, 1.2, count)
    return centre + np.stack([-rise, drift], 1), radius * shrink


@dataclass(frozen=True)
class Domes:
    """Water as merging domes (metaballs): centres [K, 2] (y, x) and radii [K], in pixels."""

    centres: NDArray[np.float64]
    radii: NDArray[np.float64]

    @property
    def typical_radius(self) -> float:
        """Of the water's larger part."""
        return float(np.average(self.radii, weights=self.radii**2))

    def at_scale(self, grain: float) -> Domes:
        """The same on a grid of steps of `grain` pixels."""
        return Domes((self.centres + 0.5) / grain - 0.5, self.radii / grain)

    def surface(self, size: tuple[int, int]) -> tuple[Floats, Floats]:
        """Cover [H, W] in [0, 1], and slope [2, H, W] (y, x): on a lone dome the place relative to its
        middle, negative, in radii; so 0 at the top and 1 long at the rim.

        A dome of radius R adds (1 - d^2 / 2R^2)^2 to a field, whose level 1/4 is the outline.
        """
        field, scale = self._field(size)
        dome = 2 * np.sqrt(field) - 1  # 1 - (d / R)^2 on a lone dome
        cover = np.clip(dome * np.maximum(scale, 1) / 2 + 0.5, 0, 1)
        slope = np.zeros((2, *size), dtype=np.float32)
        slope[0, 1:-1] = dome[2:] - dome[:-2]
        slope[1, :, 1:-1] = dome[:, 2:] - dome[:, :-2]
        return np.asarray(cover), np.asarray(slope * (scale / 4))

    def _field(self, size: tuple[int, int]) -> tuple[Floats, Floats]:
        """The field [H, W], and the radius of the domes that make it up."""
        support = self.radii * np.sqrt(2)
        sides = 2 * np.ceil(support).astype(np.int32) + 1
        counts = sides * sides
        which = np.repeat(np.arange(counts.size, dtype=np.int32), counts)
        local = np.arange(which.size, dtype=np.int32) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = local // sides[which]
        columns = local - rows * sides[which]
        corners = np.round(self.centres).astype(np.int32) - sides[:, None] // 2
        rows, columns = rows + corners[which, 0], columns + corners[which, 1]
        middles, narrow = self.centres.astype(np.float32), (1 / support**2).astype(np.float32)
        square = np.square(rows - middles[which, 0]) + np.square(columns - middles[which, 1])
        bump = 1 - square * narrow[which]
        kept = np.flatnonzero(
            (bump > 0) & (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
        )
        place, bump = rows[kept] * size[1] + columns[kept], np.square(bump[kept])
        field = np.bincount(place, bump, size[0] * size[1])
        scale = np.bincount(place, bump * self.radii[which[kept]], field.size) / np.maximum(field, 1e-9)
        return field.reshape(size).astype(np.float32), scale.reshape(size).astype(np.float32)


@dataclass(frozen=True)
class _Glass:
    """A grid of `size` before the picture, `margin` pixels larger on each side, in steps of `grain`
    pixels: what is out of focus needs no finer one."""

    size: tuple[int, int]
    grain: int
    margin: int

    @classmethod
    def before(cls, size: tuple[int, int], defocus: float) -> _Glass:
        grain = max(1, min(int(defocus / 2), 4))
        margin = int(np.ceil(defocus)) + grain
        height, width = (-(-(side + 2 * margin) // grain) for side in size)
        return cls((height, width), grain, margin)

    @property
    def extent(self) -> tuple[int, int]:
        """In pixels."""
        return self.size[0] * self.grain, self.size[1] * self.grain

    def place(self, index: NDArray[np.int64]) -> Floats:
        """Rows or columns of the picture before which rows or columns of the grid are."""
        return ((index + 0.5) * self.grain - 0.5 - self.margin).astype(np.float32)

    def cut(self, light: Floats, size: tuple[int, int]) -> Floats:
        """[*size, C]: what is before the picture, of [*self.size, C]."""
        start = self.margin / self.grain
        box = (start, start, start + size[1] / self.grain, start + size[0] / self.grain)
        planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(light, 2, 0)]
        cut = [np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR, box)) for plane in planes]
        return np.stack(cut, axis=2)


@dataclass(frozen=True)
class _Optics:
    """What light comes through the water of one picture."""

    view: float
    sky: float
    overcast: float
    rim: float
    glint: float
    sun: NDArray[np.float64]

    @classmethod
    def drawn(cls, rng: np.random.Generator, family: DropFamily, config: RaindropConfig) -> _Optics:
        view = rng.uniform(*family.view)
        return cls(
            view,
            rng.uniform(*config.sky),
            rng.uniform(*config.overcast) * min(1, view / FAR),
            rng.uniform(*config.rim),
            rng.uniform(1, 4) if rng.random() < config.sunny else 0.0,
            np.array([rng.uniform(0.3, 0.7), rng.uniform(-0.5, 0.5)]),
        )


@dataclass(frozen=True)
class _Mist:
    """Water too fine to be seen as drops: `share` [H, W, 1] of the light comes from all around, where it is
    that of the picture on average or, by `overcast`, of the sky."""

    share: Floats
    overcast: float

    @classmethod
    def drawn(cls, size: tuple[int, int], rng: np.random.Generator, config: RaindropConfig) -> _Mist | None:
        if rng.random() >= config.misted:
            return None
        across = rng.integers(2, 10)  # patches along the longer side
        grid = [max(2, round(across * side / max(size)) + 1) for side in size]
        patches = Image.fromarray(rng.standard_normal(grid).astype(np.float32))
        field = np.asarray(patches.resize(size[::-1], Image.Resampling.BICUBIC))
        amount, contrast = rng.uniform(-1.5, 1.5), rng.uniform(1, 5)
        share = rng.uniform(*config.mist) / (1 + np.exp(-contrast * (field + amount)))
        return cls(share[..., None].astype(np.float32), rng.uniform(0, 0.5))

    def before(self, light: Floats, sky: Floats, mean: Floats) -> Floats:
        """[H, W, 3]: light that comes through it; `sky` and `mean` [3] are those of the scene."""
        around = (1 - self.overcast) * mean + self.overcast * sky
        return np.asarray(light + self.share * (around - light))


class _WetGlass:
    """The water on the glass before pictures of one size: where it is and how it bends light, which is the
    same whatever is behind it."""

    def __init__(
        self,
        size: tuple[int, int],
        glass: _Glass,
        domes: Domes,
        optics: _Optics,
        defocus: float,
        mist: _Mist | None,
    ) -> None:
        self.size, self.glass, self.optics, self.defocus, self.mist = size, glass, optics, defocus, mist
        self.cover, slope = domes.at_scale(glass.grain).surface(glass.size)
        self.wet = np.flatnonzero(self.cover)
        normal = slope.reshape(2, -1)[:, self.wet]
        self.normal = normal / np.maximum(np.hypot(*normal), 1)
        self.steep = np.hypot(*self.normal)
        self.reach = optics.view * max(size)
        # What a drop shows is as much smaller as its view is wider than itself.
        self.smaller = max(1.0, self.reach / domes.typical_radius)
        self.seen = [_mirrored(place, short) for place, short in self._seen()]
        self.own_share, self.sky_share, self.glint = self._shares()
        alone = _disc_blurred(self.cover[..., None], defocus / glass.grain)
        self.covered = glass.cut(alone, size)
        self.clear = self.covered < CLEAR
        if mist is not None:
            self.clear &= mist.share < CLEAR

    @classmethod
    def drawn(cls, size: tuple[int, int], rng: np.random.Generator, config: RaindropConfig) -> _WetGlass:
        shares = np.asarray(config.weights) / sum(config.weights)
        family = config.families[rng.choice(len(config.families), p=shares)]
        defocus = rng.uniform(*family.defocus)
        glass = _Glass.before(size, defocus)
        domes = draw_domes(glass.extent, rng, family)
        optics = _Optics.drawn(rng, family, config)
        return cls(size, glass, domes, optics, defocus, _Mist.drawn(size, rng, config))

    def _seen(self) -> Iterator[tuple[Floats, int]]:
        """Rows and columns, in the reduced picture, that each wet point of the glass shows; and its sides."""
        bend = self.reach * (0.5 + 0.5 * self.steep * self.steep)  # wider towards the rim
        lines = np.divmod(self.wet, self.cover.shape[1])
        for line, part, long in zip(lines, self.normal, self.size, strict=True):
            short = _shorter(long, self.smaller)
            yield (self.glass.place(line) + bend * part) * (short / long), short

    def _shares(self) -> tuple[Floats, Floats, Floats]:
        """Of each wet point [K, 1], times cover: how much of the scene it passes on, how much of the sky, and
        the sun's light in it."""
        optics, (y, x) = self.optics, self.normal
        cover = self.cover.ravel()[self.wet]
        upward = np.clip(optics.overcast * (1 - 1.5 * y), 0, 0.9)
        passed = cover * (1 - optics.rim * self.steep**4)
        towards = (y + optics.sun[0]) ** 2 + (x - optics.sun[1]) ** 2
        shares = passed * (1 - upward), passed * upward, cover * optics.glint * np.exp(-towards / 0.02)
        own, sky, glint = (share[:, None].astype(np.float32) for share in shares)
        return own, sky, glint

    def before(self, clean: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] as seen through the glass."""
        small = _reduced(clean, self.smaller)
        sky = (self.optics.sky * np.maximum(SKY, small.reshape(-1, 3).max(0))).astype(np.float32)
        blurred = _disc_blurred(self._light(small, sky), self.defocus / self.glass.grain)
        through = linear(clean) * (1 - self.covered) + self.glass.cut(blurred, self.size)
        if self.mist is not None:
            through = self.mist.before(through, sky, small.mean((0, 1)))
        return np.where(self.clear, clean, coded(through))

    def _light(self, small: Floats, sky: Floats) -> Floats:
        """[*glass.size, 3]: the light from each point of the glass, times cover, of the reduced picture's."""
        shown = np.zeros((self.cover.size, 3), dtype=np.float32)
        shown[self.wet] = (
            small[self.seen[0], self.seen[1]] * self.own_share + sky * self.sky_share + self.glint
        )
        return shown.reshape(*self.cover.shape, 3)


def _reduced(clean: NDArray[np.uint8], factor: float) -> Floats:
    """The picture's light, `factor` times smaller, without the details that drops do not resolve."""
    image = Image.fromarray(clean)
    for share, filtering in ((2 * factor, Image.Resampling.BOX), (factor, Image.Resampling.BILINEAR)):
        width, height = (_shorter(side, share) for side in (clean.shape[1], clean.shape[0]))
        image = image.resize((width, height), filtering)
    return linear(np.asarray(image))


def _shorter(side: int, factor: float) -> int:
    return max(1, round(side / factor))


def _mirrored(place: Floats, length: int) -> NDArray[np.int64]:
    """The nearest pixels, mirrored over the ends where they are beyond."""
    index = np.floor(place).astype(np.int64) % (2 * length)
    return np.minimum(index, 2 * length - 1 - index)


def _disc_blurred(light: Floats, radius: float) -> Floats:
    """[H, W, C] blurred by a disc, nothing beyond its edges: a row of the disc is a difference of sums."""
    reach = int(radius)
    height, width = light.shape[:2]
    halves = [round((radius**2 - step**2) ** 0.5) for step in range(-reach, reach + 1)]
    wide = reach + 1
    padded = np.pad(light, ((reach, reach), (wide + 1, wide), (0, 0)))
    sums = np.cumsum(padded, axis=1)
    total = np.zeros_like(light)
    for top, half in enumerate(halves):
        rows = sums[top : top + height]
        total += rows[:, wide + 1 + half : wide + 1 + half + width]
        total -= rows[:, wide - half : wide - half + width]
    return np.asarray(total / np.float32(sum(2 * half + 1 for half in halves)))


def drops_over(
    frames: Sequence[NDArray[np.uint8]], rng: np.random.Generator, config: RaindropConfig | None = None
) -> list[NDArray[np.uint8]]:
    """Frames uint8 [H, W, 3] of one scene behind the same drops, which show it as it moves."""
    size = (frames[0].shape[0], frames[0].shape[1])
    glass = _WetGlass.drawn(size, rng, config or ON_WINDSCREENS)
    return [glass.before(frame) for frame in frames]


RAINDROP = Degradation(
    "raindrop",
    "Y",
    lambda clean, rng, dry, threshold: add_raindrops(
        clean, rng, RaindropConfig(dry=dry, threshold=threshold)
    ),
    drops_over,
    lookalike=add_drop_lookalikes,
    sized=True,
)
