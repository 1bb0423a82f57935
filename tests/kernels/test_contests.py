"""What the benchmark compares: that the dense forms compute the same, and the densities of the masks."""

import pytest
import torch

from kernels import contests, reference


@pytest.mark.parametrize("shape", ["streak", "blob", "random"])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.5, 0.8, 1.0])
def test_masks_have_the_density_asked_for(shape, density):
    mask = contests.draw_mask(shape, 2, 96, 128, density)
    assert mask.shape == (2, 1, 96, 128)
    assert mask.dtype == torch.bool
    spread = {"streak": 120 / mask[0].numel(), "blob": 1e-4, "random": 0.02}[shape]
    assert mask.float().mean((1, 2, 3)) == pytest.approx([density] * 2, abs=spread)
    assert torch.equal(mask, contests.draw_mask(shape, 2, 96, 128, density))


def test_scenes_of_a_gpu_are_few_and_begin_with_what_matters_most():
    scenes = list(contests.scenes("cuda"))
    assert len(scenes) <= 64
    assert len(set(scenes)) == len(scenes)
    assert {scene.op for scene in scenes[:7]} == {"sc_block"}
    frames = {(scene.height, scene.width, scene.pictures) for scene in scenes[:30] if scene.channels == 3}
    assert frames == {(320, 480, 8), (720, 1280, 4), (1080, 1920, 2)}
    assert {scene.pictures for scene in contests.scenes("cpu")} == {1}


def test_the_dense_forms_are_the_references_where_cells_are_degraded():
    torch.manual_seed(0)
    mask = contests.draw_mask("random", 2, 9, 7, 0.4)
    mask[0, 0, 3] = True  # a row without keys
    x = torch.randn(2, contests.CHANNELS, 9, 7, dtype=torch.float64)
    blend = torch.randn(2, 4, 9, 7, dtype=torch.float64)
    expected = reference.snl_step(x, mask, blend, contests.SNL_SCALE)
    for attend in (contests.row_masked(mask), contests.fused(mask, x.dtype)):
        torch.testing.assert_close(contests.dense_snl(x, blend, attend) * mask, expected)
    torch.testing.assert_close(
        contests.eager_sfm(x, mask, **contests.SFM_GUARDS), reference.sfm(x, mask, **contests.SFM_GUARDS)
    )
    shapes = [(4, contests.CHANNELS, 3, 3), (4, contests.CHANNELS + 4, 3, 3), (5, contests.CHANNELS + 8)]
    weights = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    biases = [torch.randn(shape[0], dtype=torch.float64) for shape in shapes]
    everywhere = torch.ones_like(mask)
    torch.testing.assert_close(
        contests.dense_sc(x, weights, biases),
        reference.sc_block(x, everywhere, weights[:-1], biases[:-1], weights[-1], biases[-1]),
    )
