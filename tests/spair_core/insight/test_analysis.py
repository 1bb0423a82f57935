import numpy as np
import pytest
import torch

from spair_core import cost, inference, metrics, weights
from spair_core.degradations.rain import LIGHT, RainConfig, add_rain
from spair_core.insight import analysis
from spair_core.insight.analysis import Truth, analyse, cost_map
from spair_core.masks import mask_from_pair
from spair_core.network import Spair, ablation


@pytest.fixture(scope="module")
def rainy(photos):
    """A rainy photograph whose sides are no multiples of 8, and the truth of it."""
    clean = photos[1][60:162, 100:238]
    rain = RainConfig(families=(LIGHT,), weights=(1,), dry=0, haze=0)
    picture, mask = add_rain(clean, np.random.default_rng(3), rain)
    assert 0.02 < mask.mean() < 0.5
    return picture, Truth(mask_from_pair(picture, clean, 0.1), clean)


@pytest.fixture(scope="module")
def model():
    return weights.load(weights.shipped("rain-light"))[0]


@pytest.fixture(scope="module")
def found(model, rainy):
    return analyse(model, *rainy, thresholds=(0.1, 0.5, 0.9))


def test_it_shows_what_restoring_gives(found, model, rainy):
    restored = inference.restore(model, rainy[0][None])
    np.testing.assert_array_equal(found.restored, restored.pixels[0])
    np.testing.assert_array_equal(found.mask, restored.mask[0])


def test_the_mask_is_held_against_the_truth(found, rainy):
    true, a = rainy[1].mask, found.agreement
    assert (a.hits + a.missed, a.hits + a.false) == (true.sum(), found.mask.sum())
    assert (a.precision, a.recall) == metrics.mask_scores(found.mask, true)
    assert a.iou == pytest.approx((found.mask & true).sum() / (found.mask | true).sum())
    assert a.recall > 0.5  # the shipped model finds this rain
    histogram = found.histogram
    assert (histogram.clean.sum(), histogram.degraded.sum()) == ((~true).sum(), true.sum())
    marked = found.logits > np.log(0.4 / 0.6)
    np.testing.assert_array_equal(marked, found.mask)


def test_calibration_by_hand():
    logits = np.log(np.array([[0.05, 0.95, 0.95, 0.95]]) / np.array([[0.95, 0.05, 0.05, 0.05]]))
    agreement = analysis._agreement(
        logits > 0, logits.astype(np.float32), np.array([[False, True, True, False]])
    )
    calibration = agreement.calibration
    np.testing.assert_allclose(calibration.predicted, [0.05, 0.95], atol=1e-6)
    np.testing.assert_allclose(calibration.observed, [0, 2 / 3])
    assert calibration.pixels.tolist() == [1, 3]
    assert calibration.error == pytest.approx((0.05 + 3 * (0.95 - 2 / 3)) / 4, abs=1e-6)


def test_errors_are_those_of_clean_pixels_alone(found, rainy):
    picture, truth = rainy
    errors = found.clean_error
    for shown, pixels in ((errors.before, picture), (errors.after, found.restored)):
        assert np.isnan(shown[truth.mask]).all()
        apart = np.abs(pixels.astype(float) - truth.clean).mean(axis=2)
        np.testing.assert_array_equal(shown[~truth.mask], apart[~truth.mask])
    assert errors.means()[0] == pytest.approx(np.nanmean(errors.before))


def test_psnr_of_both_regions_makes_up_the_whole(found, rainy):
    assert found.psnr.everywhere == pytest.approx(metrics.psnr_y(found.restored, rainy[1].clean))
    assert found.psnr.degraded > found.input_psnr.degraded
    share = rainy[1].mask.mean()
    errors = [10 ** (-value / 10) for value in (found.psnr.degraded, found.psnr.clean)]
    together = -10 * np.log10(share * errors[0] + (1 - share) * errors[1])
    assert together == pytest.approx(found.psnr.everywhere)


def test_the_sweep_runs_net_r_at_every_threshold(found, model, rainy):
    assert [point.threshold for point in found.sweep] == [0.1, 0.4, 0.5, 0.9]
    densities = [point.density for point in found.sweep]
    assert densities == sorted(densities, reverse=True)
    assert len({point.psnr.degraded for point in found.sweep}) == 4
    own = found.sweep[1]
    assert (own.density, own.psnr) == (found.mask.mean(), found.psnr)
    assert own.macs_per_pixel == pytest.approx(found.cost.mean())
    model.config, kept = type(model.config)(model.config.localizer, model.config.restorer, 0.9), model.config
    try:
        other = inference.restore(model, rainy[0][None])
    finally:
        model.config = kept
    assert found.sweep[3].psnr.everywhere == pytest.approx(metrics.psnr_y(other.pixels[0], rainy[1].clean))


def test_sfm_brings_the_statistics_together(found):
    for place in found.modulations:
        assert place.gaps(place.after)[0] < place.gaps(place.before)[0]


def test_snl_is_looked_at_where_the_picture_is_degraded_most(found, model, rainy):
    picture, truth = rainy
    apart = np.abs(picture.astype(int) - truth.clean).max(axis=2)
    assert found.mask[found.pixel]
    assert apart[found.pixel] > np.percentile(apart[found.mask], 90)
    assert [attention.level for attention in found.attentions] == [2, 4, 8]
    y, x = (int(i) for i in np.argwhere(found.mask)[0])
    chosen = analyse(model, picture, pixel=(y, x), thresholds=())
    assert chosen.pixel == (y, x)
    assert chosen.attentions[0].cell == (y // 2, x // 2)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_the_cost_map_averages_to_what_is_counted(number, density, tiny_config):
    model = Spair(ablation(number, tiny_config))
    mask = cost.streak_mask((27, 42), density, np.random.default_rng(0))
    counted = cost.count_mask(model.config, torch.from_numpy(mask)[None, None])
    spent = cost_map(model, mask)
    assert spent.shape == mask.shape
    assert spent.mean() == pytest.approx(counted.macs_per_pixel, rel=1e-12)


def test_work_stands_where_it_is_done(tiny_config):
    mask = np.zeros((64, 64), dtype=bool)
    mask[20, 20] = True
    spent = cost_map(Spair(tiny_config), mask)
    least, block = spent.min(), spent[20:22, 20:22]
    assert (spent > least).sum() == 4  # at 1/2 it fills a cell; one in 16 pixels marks none at 1/4
    assert block[0, 0] == spent.max() > block[1, 1] > least


def test_what_is_not_known_is_left_out(model, rainy):
    picture, truth = rainy
    alone = analyse(model, picture, thresholds=(0.3,))
    assert (alone.agreement, alone.clean_error, alone.psnr, alone.input_psnr) == (None,) * 4
    assert [point.psnr for point in alone.sweep] == [None, None]
    assert set(alone.numbers()) >= {"density", "macs_per_pixel"}
    assert not any(name.startswith(("psnr", "mask", "clean")) for name in alone.numbers())
    with_mask = analyse(model, picture, Truth(truth.mask), thresholds=())
    assert with_mask.agreement is not None
    assert with_mask.clean_error is None
    assert "mask.iou" in with_mask.numbers()


def test_a_clean_picture_and_one_that_is_all_degraded(tiny_config, photos):
    model = Spair(tiny_config).eval()
    clean = photos[0][:16, :24]
    for bias, marked in ((-50.0, 0.0), (50.0, 1.0)):
        torch.nn.init.constant_(model.localizer.head.bias, bias)
        found = analyse(model, clean, Truth(np.full((16, 24), bool(marked)), clean), thresholds=(0.5,))
        assert found.mask.mean() == marked
        assert not found.modulations
        assert all(np.isfinite(value) for value in found.numbers().values())
        assert (found.pixel is None) == (marked == 0)


def test_of_a_large_picture_the_part_round_the_pixel_is_looked_at(model, rainy, found):
    picture, truth = rainy
    y, x = found.pixel
    part = analyse(model, picture, truth, pixel=(y, x), max_side=32, thresholds=())
    assert part.mask.shape == (32, 32)
    assert (part.corner[0] + part.pixel[0], part.corner[1] + part.pixel[1]) == (y, x)
    top, left = part.corner
    np.testing.assert_array_equal(part.picture, picture[top : top + 32, left : left + 32])
    np.testing.assert_array_equal(part.truth.mask, truth.mask[top : top + 32, left : left + 32])


def test_bad_arguments_are_named(model, rainy, found):
    picture, truth = rainy
    with pytest.raises(ValueError, match="clean picture is 138x50, the picture 138x102"):
        analyse(model, picture, Truth(truth.mask, truth.clean[:50]))
    with pytest.raises(ValueError, match="outside the picture of 102 rows"):
        analyse(model, picture, pixel=(102, 0))
    y, x = (int(i) for i in np.argwhere(~found.mask)[0])
    with pytest.raises(ValueError, match=f"the pixel {y} {x} .* was found clean"):
        analyse(model, picture, pixel=(y, x))
    with pytest.raises(ValueError, match="uint8"):
        analyse(model, picture.astype(float))
