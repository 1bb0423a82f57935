import numpy as np

from spair_core.degradations.crops import Example
from spair_core.footage import moved
from spair_core.learning import CropConfig, columns_of, crop_of


def test_a_pair_out_of_footage_keeps_the_frames_around_it(photos):
    """Its mask follows from the pair, as a still one's does."""
    rng = np.random.default_rng(0)
    window = moved(photos[1], 96, rng)
    clean = window.pixels[window.own[0]].copy()
    window.pixels[:, 10:80:8] = 255
    pair = Example(window.pixels[window.own[0]], clean, window=window)
    crop = crop_of(pair, CropConfig(crop_size=64), rng)
    assert crop.mask.any()
    assert crop.window.pixels.shape == (len(window.pixels), 64, 64, 3)
    columns = columns_of(crop, with_references=True)
    assert (columns["references"] != np.tile(columns["degraded"], 2)).any()
