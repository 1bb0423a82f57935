import itertools

import pytest
import torch

from spair_core import inference, weights
from spair_core.inference.tiles import factors_of


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


def test_statistics_are_those_of_the_whole_picture_also_in_tiles(footage_model, photos):
    """Net_L's probabilities, dark half and bright half, as if there were no tiles."""
    pixels = photos[0][None, :256, :400].copy()
    pixels[:, :, :200] //= 4
    pictures = torch.tensor(pixels).permute(0, 3, 1, 2) / 255
    tile = pictures[..., :200]
    with torch.inference_mode():
        whole = footage_model.locate(pictures)[..., :128]
        factors = factors_of(footage_model, pictures, None, 200)
        assert factors is not None
        in_tile = footage_model(tile, factors=factors).logits[..., :128]
        by_itself = footage_model.locate(tile)[..., :128]
    assert (whole - in_tile).abs().mean() < 0.1 * (whole - by_itself).abs().mean()
