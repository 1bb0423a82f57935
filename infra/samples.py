"""The README's sheet of degradations, on photographs in the public domain.

    python -m infra.samples --out infra/images/degradations.jpg

Seeded: the same picture each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import tyro
from numpy.typing import NDArray
from PIL import Image

from infra.footage import zoom
from spair_core.degradations.lookalikes import (
    BranchConfig,
    CloudConfig,
    FrontConfig,
    add_branches,
    add_clouds,
    pass_front,
)
from spair_core.degradations.motion import (
    FocusConfig,
    MotionConfig,
    add_motion_blur,
    average_frames,
    soften,
)
from spair_core.degradations.rain import BROAD, HEAVY, LIGHT, Family, RainConfig, add_rain
from spair_core.degradations.raindrops import BEADS, FLAT, LARGE, DropFamily, RaindropConfig, add_raindrops
from spair_core.degradations.shadows import ShadowConfig, add_shadow
from spair_core.masks import mask_from_pair
from spair_core.panels import contact_sheet, overlay

Pixels = NDArray[np.uint8]
Made = tuple[Pixels, NDArray[np.bool_]]
WIDTH, HEIGHT = 272, 204
FRAMES = 9


@dataclass(frozen=True)
class SamplesConfig:
    """Where the sheet goes, and how it is drawn."""

    out: Path
    """File of the sheet, by its ending JPEG or any other format."""
    seed: int = 4
    """Of all degradations."""
    quality: int = 82
    """Of a JPEG."""


def main() -> None:
    """Write the sheet."""
    config = tyro.cli(SamplesConfig, description=__doc__)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet(config.seed)).save(config.out, quality=config.quality, optimize=True)


def sheet(seed: int) -> Pixels:
    """A row a task: three samples, and the mask of the third over it; and a row of what is none of them."""
    cells: list[tuple[str, Pixels]] = []
    for number, (caption, make) in enumerate(_samples()):
        degraded, mask = make(np.random.default_rng((seed, number)))
        cells.append((caption, degraded))
        if number % 3 == 2:
            cells.append((f"mask of the last ({mask.mean():.0%})", overlay(degraded, mask)))
    for number, (caption, alike) in enumerate(_lookalikes()):
        cells.append((caption, alike(np.random.default_rng((seed, 100 + number)))))
    return contact_sheet(cells, columns=4)


def _samples() -> Iterator[tuple[str, Callable[[np.random.Generator], Made]]]:
    coffee, cat, astronaut = (
        _view(photo) for photo in (skimage.data.coffee(), skimage.data.chelsea(), skimage.data.astronaut())
    )
    launch = _view(skimage.data.rocket())

    def rain(clean: Pixels, family: Family) -> Callable[[np.random.Generator], Made]:
        config = RainConfig(families=(family,), weights=(1.0,), dry=0, haze=0)
        return lambda rng: add_rain(clean, rng, config)

    def drops(clean: Pixels, family: DropFamily, misted: float) -> Callable[[np.random.Generator], Made]:
        config = RaindropConfig(families=(family,), weights=(1.0,), misted=misted, dry=0)
        return lambda rng: add_raindrops(clean, rng, config)

    def shadow(clean: Pixels, weights: tuple[float, float, float]) -> Callable[[np.random.Generator], Made]:
        config = ShadowConfig(weights=weights, coverage=(0.25, 0.5), remaining=(0.15, 0.4), dry=0)
        return lambda rng: add_shadow(clean, rng, config)

    def motion(clean: Pixels, objects: float) -> Callable[[np.random.Generator], Made]:
        config = MotionConfig(objects=objects, length=(10, 18), region=(0.4, 0.6), dry=0)
        return lambda rng: add_motion_blur(clean, rng, config)

    def driven(_: np.random.Generator) -> Made:
        blurred, middle = (
            _view(frame) for frame in average_frames(zoom(skimage.data.coffee(), 2 * FRAMES)[:FRAMES])
        )
        return blurred, mask_from_pair(blurred, middle)

    yield "rain: light", rain(launch, LIGHT)
    yield "rain: heavy", rain(coffee, HEAVY)
    yield "rain: broad", rain(astronaut, BROAD)
    yield "raindrops: beads", drops(launch, BEADS, 0)
    yield "raindrops: large", drops(astronaut, LARGE, 0)
    yield "raindrops: flat, and mist", drops(coffee, FLAT, 1)
    yield "shadow: foliage", shadow(coffee, (0, 0, 1))
    yield "shadow: edges", shadow(cat, (0, 1, 0))
    yield "shadow: blob", shadow(astronaut, (1, 0, 0))
    yield "blur: shaken camera", motion(astronaut, 0)
    yield f"blur: {FRAMES} frames averaged", driven
    yield "blur: a moving region", motion(cat, 1)


def _lookalikes() -> Iterator[tuple[str, Callable[[np.random.Generator], Pixels]]]:
    cat, astronaut, launch = (
        _view(photo) for photo in (skimage.data.chelsea(), skimage.data.astronaut(), skimage.data.rocket())
    )
    yield "no streaks: a front", lambda rng: pass_front([cat], [0], rng, FrontConfig(fronted=1))[0]
    yield "no drops: clouds", lambda rng: add_clouds(launch, rng, CloudConfig(cloudy=1, opened=1))
    yield "no drops: branches", lambda rng: add_branches(astronaut, rng, BranchConfig(branched=1))
    yield "no blur: out of focus", lambda rng: soften(cat, rng, FocusConfig(soft=1, radius=(5, 9)))


def _view(photo: Pixels) -> Pixels:
    """The middle of a photograph at the size of a cell."""
    height, width = photo.shape[:2]
    scale = min(width / WIDTH, height / HEIGHT)
    left, top = (width - scale * WIDTH) / 2, (height - scale * HEIGHT) / 2
    box = (left, top, width - left, height - top)
    return np.asarray(Image.fromarray(photo).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box))


if __name__ == "__main__":
    main()
