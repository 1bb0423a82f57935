"""What the benchmark compares: that the dense forms compute the same."""

import torch

from kernels import contests, reference, scenes


def test_the_dense_forms_are_the_references_where_cells_are_degraded():
    torch.manual_seed(0)
    mask = scenes.draw_mask("random", 2, 9, 7, 0.4)
    mask[0, 0, 3] = True  # a row without keys
    x = torch.randn(2, scenes.CHANNELS, 9, 7, dtype=torch.float64)
    blend = torch.randn(2, 4, 9, 7, dtype=torch.float64)
    expected = reference.snl_step(x, mask, blend, contests.SNL_SCALE)
    for attend in (contests.row_masked(mask), contests.fused(mask, x.dtype)):
        torch.testing.assert_close(contests.dense_snl(x, blend, attend) * mask, expected)
    torch.testing.assert_close(
        contests.eager_sfm(x, mask, **contests.SFM_GUARDS), reference.sfm(x, mask, **contests.SFM_GUARDS)
    )
    shapes = [(4, scenes.CHANNELS, 3, 3), (4, scenes.CHANNELS + 4, 3, 3), (5, scenes.CHANNELS + 8)]
    weights = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    biases = [torch.randn(shape[0], dtype=torch.float64) for shape in shapes]
    everywhere = torch.ones_like(mask)
    torch.testing.assert_close(
        contests.dense_sc(x, weights, biases),
        reference.sc_block(x, everywhere, weights[:-1], biases[:-1], weights[-1], biases[-1]),
    )
