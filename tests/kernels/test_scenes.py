"""What the benchmark is run on: the order of the scenes, and the densities of the masks."""

import pytest
import torch

from kernels.contests import CONTESTS
from kernels.scenes import OPS, REPLAYED, draw_mask, scenes


@pytest.mark.parametrize("shape", ["streak", "blob", "random"])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.5, 0.8, 1.0])
def test_masks_have_the_density_asked_for(shape, density):
    mask = draw_mask(shape, 2, 96, 128, density)
    assert mask.shape == (2, 1, 96, 128)
    assert mask.dtype == torch.bool
    spread = {"streak": 120 / mask[0].numel(), "blob": 1e-4, "random": 0.02}[shape]
    assert mask.float().mean((1, 2, 3)) == pytest.approx([density] * 2, abs=spread)
    assert torch.equal(mask, draw_mask(shape, 2, 96, 128, density))


def test_scenes_of_a_gpu_are_few_and_begin_with_what_matters_most():
    found = list(scenes("cuda"))
    assert len(found) <= 72
    assert len(set(found)) == len(found)
    assert {scene.op for scene in found[:7]} == {"sc_block"}
    frames = {(scene.height, scene.width, scene.pictures) for scene in found[:30] if scene.channels == 3}
    assert frames == {(320, 480, 8), (720, 1280, 4), (1080, 1920, 2)}
    assert {scene.pictures for scene in scenes("cpu")} == {1}


def test_every_scene_has_its_contest():
    assert tuple(CONTESTS) == (*OPS, *REPLAYED)
