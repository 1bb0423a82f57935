import numpy as np
import pytest
import torch

from spair_core.masks import coarsen, mask_from_pair


def test_a_pixel_is_degraded_where_any_channel_differs_by_more_than_the_threshold():
    clean = np.full((1, 4, 3), 100, np.uint8)
    degraded = clean.copy()
    degraded[0, 1, 0] += 12  # 12 / 255 < 0.05
    degraded[0, 2, 1] += 13  # 13 / 255 > 0.05
    degraded[0, 3, 2] -= 13  # darker counts as well
    assert mask_from_pair(degraded, clean).tolist() == [[False, False, True, True]]
    assert mask_from_pair(clean, degraded).tolist() == [[False, False, True, True]]
    assert mask_from_pair(degraded, clean, threshold=0.1).sum() == 0


def test_the_whole_range_does_not_wrap_around():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert mask_from_pair(black, white, threshold=0.99).all()


def test_unequal_pairs_are_refused():
    with pytest.raises(ValueError, match="differ in size"):
        mask_from_pair(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4, 3), np.uint8))


def levels(*pixels):
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    for y, x in pixels:
        mask[0, 0, y, x] = True
    return coarsen(mask)


def test_half_takes_the_maximum():
    full, half, quarter, eighth = levels((3, 9))
    assert [level.shape[-1] for level in (full, half, quarter, eighth)] == [16, 8, 4, 2]
    assert all(level.dtype == torch.bool for level in (full, half, quarter, eighth))
    assert half.nonzero().tolist() == [[0, 0, 1, 4]]
    assert not quarter.any()


def test_coarser_cells_need_an_eighth_of_their_pixels():
    _, _, quarter, eighth = levels((0, 0), (3, 3))  # 2 of 16, 2 of 64
    assert quarter.nonzero().tolist() == [[0, 0, 0, 0]]
    assert not eighth.any()
    _, _, _, below = levels(*((row, 8) for row in range(7)))  # 7 of 64
    _, _, _, enough = levels(*((row, 8) for row in range(8)))  # 8 of 64
    assert not below.any()
    assert enough.nonzero().tolist() == [[0, 0, 0, 1]]
