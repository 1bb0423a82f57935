import sys

import numpy as np
from PIL import Image

from infra import samples


def test_the_sheet_has_a_row_a_task_and_one_of_lookalikes_and_comes_back_from_its_seed(tmp_path, monkeypatch):
    out = tmp_path / "images" / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["samples", "--out", str(out), "--seed", "5"])
    samples.main()
    drawn = np.asarray(Image.open(out))
    assert drawn.shape[1] == 4 * samples.WIDTH
    assert (drawn == samples.sheet(5)).all()
    cells = drawn.reshape(5, drawn.shape[0] // 5, 4, samples.WIDTH, 3)[:, -samples.HEIGHT :]
    assert (cells.std(axis=(1, 3)) > 5).all()  # no cell is empty
