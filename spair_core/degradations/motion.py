"""Motion blur that varies in space, on clean pictures, with its exact mask, from a seeded generator.

A shaken camera shifts and turns: the picture is the mean, in linear light, of what it saw in its
poses, each with the share of the exposure that it spent there (the motion density function of Gupta
et al., Single Image Deblurring Using Motion Density Functions, ECCV 2010). So every place has a
kernel of its own. `ShakeKernels` takes the shifts from measured kernels. Or the camera stands still
and one object moves along its path before what is behind it. `average_frames` blurs real clips.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from spair_core.degradations.degradation import Degradation
from spair_core.light import coded, linear
from spair_core.masks import THRESHOLD, mask_from_pair

Range = tuple[float, float]
Floats = NDArray[np.float32]
TURNS = 32
"""Most angles among which a camera's poses are divided."""
COARSE = 4
"""Pixels to a step of the grid on which a moving region is drawn."""
LIKENESS = (50, 120)
"""Difference in colour, of 255, at which a region ends."""
FAINT = 0.01
"""Share of a kernel's greatest value below which a cell of it is left out."""


@dataclass(frozen=True)
class MotionConfig:
    """How often a picture gets which motion; every value is drawn from its range."""

    objects: float = 0.25
    """Share of pictures in which an object moves and the camera does not."""
    length: Range = (1.5, 20.0)
    """Length of the path during the exposure, in pixels."""
    turn: Range = (-2.0, 2.0)
    """By how much the camera turns during the exposure, in degrees."""
    wander: Range = (0.1, 2.5)
    """Standard deviation of a path's heading over the exposure, in radians: small is nearly straight."""
    region: Range = (0.25, 0.6)
    """Extent of a drawn moving region, as a share of the picture's shorter side."""
    dry: float = 0.12
    """Share of pictures that stay as they are."""
    threshold: float = THRESHOLD
    """Difference over which a pixel counts as degraded."""


@dataclass(frozen=True)
class FocusConfig:
    """How often a clean picture is out of focus, and how far; every value is drawn from its range."""

    soft: float = 0.4
    """Share of pictures that are."""
    whole: float = 0.3
    """Share of those that are so everywhere; of the others one region is sharp, or it alone is not."""
    radius: Range = (0.6, 9.0)
    """Radius of the disc that a point becomes, in pixels; small ones are as frequent as large ones."""
    region: Range = (0.3, 0.9)
    """Extent of the region, as a share of the picture's shorter side."""
    grain: Range = (0.0, 2.5)
    """Standard deviation of the sensor's noise, of 255, which is sharp where the picture is not."""


def add_motion_blur(
    clean: NDArray[np.uint8],
    rng: np.random.Generator,
    config: MotionConfig | None = None,
    regions: NDArray[np.integer] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """uint8 [H, W, 3] -> the same in motion, and the mask bool [H, W].

    The mask is `mask_from_pair`'s at `config.threshold`: blur on even ground is in none. An object is
    one of the labels of `regions` [H, W], where given, else a region alike in colour. The generator's
    state decides everything. Raises ValueError where the regions are of another size.
    """
    config = config or MotionConfig()
    if regions is not None and regions.shape != clean.shape[:2]:
        raise ValueError(f"the regions are {regions.shape}, the picture {clean.shape[:2]}")
    if rng.random() < config.dry:
        return clean.copy(), np.zeros(clean.shape[:2], dtype=np.bool_)
    moving = rng.random() < config.objects
    path = draw_path(rng, rng.uniform(*config.length), rng.uniform(*config.wander))
    if moving:
        cover = _labelled(regions, rng) if regions is not None else _alike(clean, rng, config.region)
        blurred = move(clean, cover, path)
    else:
        # The camera turns as it goes, fast where it moves fast.
        run = np.cumsum(np.hypot(*np.diff(path, axis=0, prepend=path[:1]).T))
        turns = rng.uniform(*config.turn) * run / max(run[-1], 1e-9)
        blurred = shake(clean, path, turns - turns.mean())
    return blurred, mask_from_pair(blurred, clean, config.threshold)


def draw_path(rng: np.random.Generator, length: float, wander: float) -> NDArray[np.float64]:
    """A path [N, 2] (y, x) in pixels around its mean: a heading and a speed that drift."""
    count = max(8, 2 * round(length))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, wander / np.sqrt(count), count))
    drift = np.cumsum(rng.normal(0, 1 / np.sqrt(count), count))
    speed = np.exp(drift - drift.max())
    steps = (length / speed.sum()) * speed[:, None] * np.stack([np.sin(heading), np.cos(heading)], 1)
    path = np.cumsum(steps, axis=0)
    return np.asarray(path - path.mean(0))


def soften(
    clean: NDArray[np.uint8], rng: np.random.Generator, config: FocusConfig | None = None
) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], of some pictures all or a part out of focus, which no motion has to do with.

    Light is spread over a disc, as lenses do; the generator's state decides everything.
    """
    config = config or FocusConfig()
    if rng.random() >= config.soft:
        return clean
    radius = float(np.exp(rng.uniform(*np.log(config.radius))))
    spread = cv2.filter2D(linear(clean), -1, _disc(radius), borderType=cv2.BORDER_REFLECT)
    soft = coded(np.asarray(spread)) + rng.normal(0, rng.uniform(*config.grain), clean.shape)
    part: Floats | float = 1.0
    if rng.random() >= config.whole:
        part = _alike(clean, rng, config.region)[..., None]
        part = part if rng.random() < 0.5 else 1 - part
    return np.asarray(np.clip(np.rint(clean + part * (soft - clean)), 0, 255), dtype=np.uint8)


class ShakeKernels:
    """Measured kernels of shaken cameras."""

    def __init__(self, kernels: Iterable[NDArray[np.floating]], config: MotionConfig | None = None) -> None:
        """`kernels` [k, l], not negative; `config` says how far the camera turns.

        Raises ValueError where there are none, or one is no kernel.
        """
        self.config = config or MotionConfig()
        self.kernels = [np.asarray(kernel, dtype=np.float64) for kernel in kernels]
        if not self.kernels:
            raise ValueError("no blur kernels")
        for number, kernel in enumerate(self.kernels):
            if kernel.ndim != 2 or not np.isfinite(kernel).all() or kernel.min() < 0 or kernel.sum() <= 0:
                raise ValueError(f"blur kernel {number} is not a plane of shares of time, positive in sum")

    def add(
        self, clean: NDArray[np.uint8], rng: np.random.Generator, threshold: float = THRESHOLD
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Like `add_motion_blur`, with a kernel drawn at random, mirrored and turned by quarters; the
        camera also turns, steadily along a direction of the kernel."""
        kernel = self.kernels[rng.integers(len(self.kernels))]
        kernel = np.rot90(kernel[:: rng.choice([-1, 1])], int(rng.integers(4)))
        cells = np.argwhere(kernel > FAINT * kernel.max())
        shares = kernel[cells[:, 0], cells[:, 1]]
        # Whole pixels, so that the kernel is used as it was measured.
        shifts = cells - np.round(np.average(cells, axis=0, weights=shares))
        direction = rng.uniform(0, 2 * np.pi)
        along = shifts @ np.array([np.sin(direction), np.cos(direction)])
        turns = rng.uniform(*self.config.turn) * along / max(float(np.ptp(along)), 1.0)
        blurred = shake(clean, shifts, turns, shares)
        return blurred, mask_from_pair(blurred, clean, threshold)


def shake(
    clean: NDArray[np.uint8],
    shifts: NDArray[np.float64],
    turns: NDArray[np.float64],
    shares: NDArray[np.float64] | None = None,
) -> NDArray[np.uint8]:
    """What a camera saw in poses: uint8 [H, W, 3], mirrored beyond its edges.

    The picture is moved by `shifts` [N, 2] (y, x) pixels and turned about its middle by `turns` [N]
    degrees, for `shares` [N] of the exposure (by default equal ones). Angles that move the corners by
    the same pixel are taken as one, and at most TURNS are told apart.
    """
    reach = np.hypot(*clean.shape[:2]) / 2
    spread = float(np.ptp(turns))
    count = int(np.clip(np.ceil(np.deg2rad(spread) * reach), 1, TURNS))
    nearest = np.round((turns - turns.min()) / max(spread, 1e-9) * (count - 1)).astype(int)
    density = np.ones(len(turns)) if shares is None else shares
    density = density / density.sum()
    radius = int(np.ceil(np.abs(shifts).max())) + 1
    margin = radius + int(np.ceil(np.deg2rad(np.abs(turns).max()) * reach)) + 1
    padded = Image.fromarray(np.pad(clean, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric"))
    inner = margin - radius
    total = np.zeros(clean.shape, dtype=np.float32)
    for level in np.unique(nearest):
        chosen = nearest == level
        angle = float(np.average(turns[chosen], weights=density[chosen]))
        view = padded.rotate(angle, Image.Resampling.BILINEAR) if angle else padded
        light = linear(np.asarray(view)[inner : view.height - inner, inner : view.width - inner])
        _accumulate(total, light, _kernel(shifts[chosen], density[chosen], radius))
    return coded(total)


def move(clean: NDArray[np.uint8], cover: Floats, path: NDArray[np.float64]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: the part under `cover` [H, W] in [0, 1] moved along `path` [N, 2] (y, x) pixels.

    What it uncovers is filled in from around it.
    """
    radius = int(np.ceil(np.abs(path).max())) + 1
    rows, columns = (np.flatnonzero(cover.max(axis)) for axis in (1, 0))
    moved = clean.copy()
    if not rows.size or not path.any():
        return moved
    # Only what the object passes over is touched; beyond the picture's edges it goes on.
    box = tuple(
        slice(max(line[0] - radius, 0), min(line[-1] + radius + 1, side))
        for line, side in zip((rows, columns), cover.shape, strict=True)
    )
    light, part = linear(clean[box]), cover[box][..., None]
    layer = np.concatenate([light * part, part], axis=2)
    padded = np.pad(layer, ((radius, radius), (radius, radius), (0, 0)), mode="symmetric")
    seen = np.zeros_like(layer)
    _accumulate(seen, padded, _kernel(path, np.full(len(path), 1 / len(path)), radius))
    behind = light + part * (_surroundings(clean[box], cover[box], radius) - light)
    mixed = coded(seen[..., :3] + (1 - seen[..., 3:]) * behind)
    moved[box] = np.where((seen[..., 3:] > 0) | (part > 0), mixed, clean[box])
    return moved


def average_frames(frames: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Consecutive frames [T, H, W, 3] -> their mean in linear light and the middle one, uint8 [H, W, 3].

    As GoPro's pairs were made (Nah et al., CVPR 2017), of 7 to 13 frames at 240 a second; of an even
    number the later of the middle two is taken. Raises ValueError where there is no frame.
    """
    if len(frames) == 0:
        raise ValueError("no frames to average")
    total = np.zeros(frames.shape[1:], dtype=np.float32)
    for frame in frames:
        total += linear(frame)
    return coded(total / np.float32(len(frames))), frames[len(frames) // 2].copy()


def _kernel(shifts: NDArray[np.float64], shares: NDArray[np.float64], radius: int) -> Floats:
    """The shares on whole pixels [2 radius + 1, 2 radius + 1], each divided among the four nearest."""
    side = 2 * radius + 1
    corner = np.floor(shifts).astype(np.int64)
    part = shifts - corner
    place = (corner[:, 0] + radius) * side + corner[:, 1] + radius
    kernel = np.zeros(side * side)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.abs(1 - down - part[:, 0]) * np.abs(1 - right - part[:, 1])
        kernel += np.bincount(place + down * side + right, weight * shares, kernel.size)
    kept = np.where(kernel > FAINT * kernel.max(), kernel, 0)
    return (kept * (kernel.sum() / kept.sum())).reshape(side, side).astype(np.float32)


def _disc(radius: float) -> Floats:
    """Shares of the light of a point, its edge softened by a pixel."""
    reach = int(np.ceil(radius))
    line = np.arange(-reach, reach + 1)
    inside = np.clip(radius + 0.5 - np.hypot(line[:, None], line), 0, 1)
    return np.asarray(inside / inside.sum(), dtype=np.float32)


def _accumulate(total: Floats, light: Floats, kernel: Floats) -> None:
    """Add `light`, larger by the kernel's radius on each side, moved by each cell of the kernel."""
    height, width = total.shape[:2]
    radius = kernel.shape[0] // 2
    term = np.empty_like(total)
    for y, x in np.argwhere(kernel):
        top, left = 2 * radius - y, 2 * radius - x
        np.multiply(light[top : top + height, left : left + width], kernel[y, x], out=term)
        total += term


def _labelled(regions: NDArray[np.integer], rng: np.random.Generator) -> Floats:
    """Cover [H, W] of the region under a random pixel, its edge softened by a pixel."""
    y, x = (int(rng.integers(side)) for side in regions.shape)
    region = Image.fromarray((regions == regions[y, x]).astype(np.uint8) * 255)
    return _share(region.filter(ImageFilter.GaussianBlur(0.7)))


def _alike(clean: NDArray[np.uint8], rng: np.random.Generator, extent: Range) -> Floats:
    """Cover [H, W] of a soft region: what is near to a random pixel, in place and in colour."""
    height, width = clean.shape[:2]
    rows, columns = (-(-side // COARSE) for side in (height, width))
    small = Image.fromarray(clean).resize((columns, rows), Image.Resampling.BOX)
    colour = np.asarray(small).astype(np.float32)
    y, x = (rng.uniform(0.15, 0.85) * side for side in (rows, columns))
    size = rng.uniform(*extent, 2) * min(rows, columns)
    place = ((np.arange(rows) - y) / size[0])[:, None] ** 2 + ((np.arange(columns) - x) / size[1]) ** 2
    unlike = colour - colour[int(y), int(x)]
    distance = place + np.square(unlike).sum(2) / rng.uniform(*LIKENESS) ** 2
    region = Image.fromarray((255 * np.clip(3 * (1 - distance) + 0.5, 0, 1)).astype(np.uint8))
    cover = region.filter(ImageFilter.GaussianBlur(1)).resize((width, height), Image.Resampling.BILINEAR)
    return _share(cover)


def _share(cover: Image.Image) -> Floats:
    return np.asarray(np.asarray(cover, dtype=np.float32) / 255)


def _surroundings(clean: NDArray[np.uint8], cover: Floats, radius: int) -> Floats:
    """Light [H, W, 3] of what is not covered, spread by `radius` into the cover."""
    outside = (1 - cover)[..., None]
    # Four channels are blurred at once, as those of a picture with alpha are.
    parts = np.concatenate([clean * outside, 255 * outside], axis=2).astype(np.uint8)
    spread = np.asarray(Image.fromarray(parts).filter(ImageFilter.BoxBlur(radius))).astype(np.float32)
    known = spread[..., 3:]
    colour = np.where(known > 0, 255 * spread[..., :3] / np.maximum(known, 1), clean)
    return linear(np.clip(colour, 0, 255).astype(np.uint8))


BLUR = Degradation(
    "blur",
    "RGB",
    lambda clean, rng, dry, threshold: add_motion_blur(
        clean, rng, MotionConfig(dry=dry, threshold=threshold)
    ),
    lookalike=soften,
)
