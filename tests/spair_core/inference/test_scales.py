"""Large pictures are restored at coarser scales as well, and each pixel takes the larger correction."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from spair_core import inference, weights
from spair_core.degradations.rain import LIGHT, RainConfig, add_rain
from spair_core.inference.scales import SMALLEST, over_scales
from spair_core.metrics import psnr_y


def seen_by(sizes, *, references=None):
    """The sizes at which a picture of these sides is looked at."""
    seen = []

    def once(pictures, beside):
        seen.append(tuple(pictures.shape[-2:]))
        assert (beside is None) == (references is None)
        assert beside is None or beside.shape[-2:] == pictures.shape[-2:]
        return pictures, torch.zeros_like(pictures[:, :1], dtype=torch.bool)

    pictures = torch.rand(1, 3, *sizes, generator=torch.Generator().manual_seed(0))
    restored, mask = over_scales(once, pictures, references)
    assert torch.equal(restored, pictures)
    assert not mask.any()
    return seen


def test_small_pictures_are_looked_at_once():
    assert seen_by((2 * SMALLEST - 1, 3000)) == [(2 * SMALLEST - 1, 3000)]


def test_large_ones_at_half_their_sides_again_and_again():
    assert seen_by((641, 645)) == [(641, 645), (321, 323)]
    assert seen_by((4 * SMALLEST, 4 * SMALLEST + 3)) == [(1280, 1283), (640, 642), (320, 321)]
    assert seen_by((640, 650), references=torch.zeros(1, 6, 640, 650)) == [(640, 650), (320, 325)]


def test_a_pixel_takes_the_larger_correction():
    pictures = torch.full((1, 3, 640, 640), 0.5)
    box, line = (..., slice(100, 140), slice(200, 240)), (..., slice(300, 301), slice(0, 640))

    def once(small, _):
        fine = small.shape[-1] == 640
        restored, mask = small.clone(), torch.zeros_like(small[:, :1], dtype=torch.bool)
        place = line if fine else (..., slice(50, 70), slice(100, 120))
        restored[place] -= 0.25
        mask[place] = True
        return restored, mask

    restored, mask = over_scales(once, pictures, None)
    assert (restored[line] == 0.25).all()
    inside = restored[..., 104:136, 204:236]
    assert torch.allclose(inside, torch.full_like(inside, 0.25), atol=1e-6)
    assert mask[box].all()
    assert mask[line].all()
    far = torch.ones_like(mask)
    far[..., 90:150, 190:250] = far[..., 296:305, :] = False
    assert (restored[far.expand_as(restored)] == 0.5).all()
    assert not mask[far].any()


@pytest.mark.parametrize(("task", "scales"), [("rain", True), ("rain+raindrop", True), ("blur", False)])
def test_the_task_decides(task, scales, tiny_weights):
    model, card = weights.load(tiny_weights)
    again, _ = weights.load(weights.save(model, replace(card, task=task)))
    assert again.scales is scales


@pytest.mark.long
def test_broad_streaks_are_found(photos):
    clean = np.asarray(Image.fromarray(photos[3]).resize((704, 704), Image.Resampling.BICUBIC))
    sides = {"length": (60, 140), "width": (5, 7), "softness": (2, 4)}
    broad = replace(LIGHT, coverage=(0.05, 0.2), brightness=(0.2, 0.4), **sides)
    twice = RainConfig(families=(broad,), weights=(1,), dry=0, haze=0)
    rainy, _ = add_rain(clean, np.random.default_rng(1), twice)
    model, _ = weights.load(weights.shipped("footage-light"))
    both = psnr_y(inference.restore(model, rainy[None]).pixels[0], clean)
    model.scales = False
    alone = psnr_y(inference.restore(model, rainy[None]).pixels[0], clean)
    assert both > alone + 1 > psnr_y(rainy, clean) + 1
