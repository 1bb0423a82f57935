import numpy as np
import pytest

from spair_core import panels


def test_panels_stand_side_by_side(photos):
    before = photos[0][:100, :200]
    mask = np.zeros((100, 200), bool)
    mask[:50] = True
    panel = panels.before_after(before, before // 2, mask, before, max_width=400)
    assert panel.shape[1] == 400
    assert panel.shape[0] == 50 + panels.CAPTION
    # The mask's half of the second part has the marking colour.
    assert (panel[panels.CAPTION + 10, 150] == panels.MARK).all()
    assert (panel[panels.CAPTION + 40, 150] != panels.MARK).any()


def test_sizes_must_agree(photos):
    with pytest.raises(ValueError, match="one size"):
        panels.before_after(photos[0], photos[1])
