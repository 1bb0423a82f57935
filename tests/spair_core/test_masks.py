import numpy as np
import pytest

from spair_core.masks import mask_from_pair


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
