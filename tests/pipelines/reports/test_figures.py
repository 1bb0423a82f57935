import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.reports import figures
from spair_core.insight.analysis import Truth, analyse
from spair_core.network import Spair


@pytest.fixture(scope="module")
def found(tiny_config, photos):
    """Of a network that marks a tenth of the pixels."""
    torch.manual_seed(0)
    model = Spair(tiny_config).eval()
    clean = photos[0][:50, :70]
    true = np.zeros((50, 70), dtype=bool)
    true[10:30, 20:30] = True
    picture = clean.copy()
    picture[true] = 255
    with torch.no_grad():
        model.localizer.head.bias -= model.locate(
            torch.tensor(picture).permute(2, 0, 1)[None] / 255
        ).quantile(0.9)
    model.config = replace(tiny_config, binarize=0.5)
    return analyse(model, picture, Truth(true, clean), thresholds=(0.3, 0.6))


def test_the_overlay_tells_hits_misses_and_false_finds_apart(found):
    shown = np.asarray(Image.open(io.BytesIO(figures.mask_overlay(found))))
    assert shown.shape == (50, 70, 3)
    colours = {name: tuple(bytes.fromhex(getattr(figures, name)[1:])) for name in ("HIT", "MISSED", "FALSE")}
    true, mask = found.truth.mask, found.mask
    expected = {"HIT": true & mask, "MISSED": true & ~mask, "FALSE": mask & ~true}
    assert all(where.any() for where in expected.values())
    for name, where in expected.items():
        np.testing.assert_array_equal((shown == colours[name]).all(axis=2), where)


def test_charts_carry_their_words(found):
    sweep = figures.sweep(found, 0.4, "Y").decode()
    for words in ("PSNR on Y", "degraded", "clean", "everywhere", "threshold"):
        assert words in sweep
    assert "encoder 1/8" in figures.modulations(found).decode()
    assert "Calibration" in figures.localization(found).decode()
    assert "step 2, along the column" in figures.attention_lines(found).decode()


@pytest.mark.long
@pytest.mark.parametrize("draw", [figures.clean_error, figures.attention, figures.cost])
def test_maps_are_pictures_and_the_same_each_time(found, draw):
    data = draw(found)
    assert Image.open(io.BytesIO(data)).format == "PNG"
    assert draw(found) == data


def test_an_error_map_needs_the_truth(tiny_config, photos):
    alone = analyse(Spair(tiny_config).eval(), photos[0][:16, :16], thresholds=())
    with pytest.raises(ValueError, match="needs the clean picture"):
        figures.clean_error(alone)
    assert "needs the clean picture" in figures.sweep(alone, 0.4, "Y").decode()
