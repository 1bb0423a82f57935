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
    with pytest.raises(ValueError, match="mask of"):
        panels.overlay(photos[0], np.zeros((3, 5), bool))


def test_contact_sheets_stand_in_rows():
    cells = [(str(value), np.full((30, 50, 3), value, np.uint8)) for value in (10, 20, 30, 40, 50)]
    sheet = panels.contact_sheet(cells, columns=2)
    height = 30 + panels.CAPTION
    assert sheet.shape == (3 * height, 100, 3)
    assert (sheet[height + panels.CAPTION : 2 * height, 50:] == 40).all()
    assert (sheet[2 * height :, 50:] == 0).all()
    with pytest.raises(ValueError, match="one size"):
        panels.contact_sheet([*cells, ("other", np.zeros((5, 5, 3), np.uint8))], columns=2)
    with pytest.raises(ValueError, match="one size"):
        panels.contact_sheet([], columns=2)
