"""Pictures and windows of frames -> crops as a training step takes them, beside their references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spair_core.degradations.catalogue import degradations
from spair_core.degradations.crops import Example, degrade, random_crop, random_flip
from spair_core.degradations.degradation import Material
from spair_core.footage import Window, moved, references
from spair_core.learning.settings import CropConfig
from spair_core.masks import mask_from_pair

Columns = dict[str, NDArray[Any]]
"""Of a crop or of several: uint8 `degraded` and `clean` [..., H, W, 3], bool `mask` [..., H, W], and
`references` uint8 [..., H, W, 6] where the network takes them."""


def crop_of(
    example: Example,
    config: CropConfig,
    rng: np.random.Generator,
    task: str = "rain",
    material: Mapping[str, Material] | None = None,
) -> Example:
    """One crop, flipped at random; a clean picture's crop is degraded for `task`, masks are filled in."""
    crop = random_flip(random_crop(example, config.crop_size, rng), rng)
    if crop.degraded is None:
        return degrade(crop, rng, task, dry=config.dry, threshold=config.mask_threshold, material=material)
    if crop.mask is None:
        mask = mask_from_pair(crop.degraded, crop.clean, config.mask_threshold)
        return replace(crop, mask=mask)
    return crop


def filmed(example: Example, config: CropConfig, rng: np.random.Generator, task: str) -> Example:
    """A camera's footage of a clean picture, of some of those whose degradation footage has."""
    clean = example.degraded is None and example.window is None
    if not clean or not any(part.over for part in degradations(task)) or rng.random() >= config.moved:
        return example
    window = moved(example.clean, config.crop_size, rng)
    return Example(None, window.pixels[window.own[0]], window=window)


def columns_of(crop: Example, *, with_references: bool, alone: bool = False) -> Columns:
    """A degraded crop; a frame is shown `alone` as if it were a still."""
    assert crop.degraded is not None
    assert crop.mask is not None
    columns: Columns = {"degraded": crop.degraded, "clean": crop.clean, "mask": crop.mask}
    if with_references:
        seen = Window.alone(crop.degraded[None]) if alone else crop.shown
        columns["references"] = next(references(seen))
    return columns
