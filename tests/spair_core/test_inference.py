import itertools

import numpy as np
import pytest
import torch

from spair_core import inference, weights


@pytest.fixture(scope="module")
def model(tiny_weights):
    return weights.load(tiny_weights)[0]


def test_a_batch_of_pictures(model, photos):
    pixels = np.stack([photos[0][:50, :70], photos[1][:50, :70]])
    restored = inference.restore(model, pixels)
    assert restored.pixels.shape == pixels.shape
    assert restored.pixels.dtype == np.uint8
    assert restored.mask.shape == pixels.shape[:3]


@pytest.mark.parametrize("length", [100, 128, 129, 200, 1000])
def test_spans_cover_everything_and_overlap(length):
    spans = inference.spans(length, 128)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert end - start >= inference.OVERLAP


def test_tiles_add_up_to_one_without_a_seam(tiny_weights, photos):
    model = weights.load(tiny_weights)[0]
    torch.nn.init.zeros_(model.restorer.output.weight)
    torch.nn.init.zeros_(model.restorer.output.bias)
    # A network that corrects nothing must give the picture back, wherever tiles meet.
    pixels = photos[0][None, :200, :300]
    restored = inference.restore(model, pixels, tile=140)
    assert (restored.pixels == pixels).all()


def test_tiles_restore_every_part(model, photos):
    pixels = photos[0][None, :200, :300]
    whole = inference.restore(model, pixels, tile=512)
    tiled = inference.restore(model, pixels, tile=200)
    assert (tiled.pixels != pixels).mean() == pytest.approx((whole.pixels != pixels).mean(), abs=0.1)


def test_other_arrays_are_refused(model):
    with pytest.raises(ValueError, match="uint8"):
        inference.restore(model, np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="uint8"):
        inference.restore(model, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="at least"):
        inference.restore(model, np.zeros((1, 8, 8, 3), np.uint8), tile=8)
