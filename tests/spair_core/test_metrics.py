import math

import numpy as np
import pytest
from skimage.color import rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from spair_core import metrics


@pytest.fixture
def pair(photos):
    clean = photos[0][:120, :150]
    noise = np.random.default_rng(0).normal(0, 12, clean.shape)
    return np.clip(clean + noise, 0, 255).astype(np.uint8), clean


def test_psnr_by_hand():
    a = np.zeros((4, 4, 3), np.uint8)
    b = a.copy()
    b[0, 0, 0] = 48  # mean squared error 48^2 / 48 = 48
    assert metrics.psnr(a, b) == pytest.approx(10 * math.log10(255**2 / 48))
    assert metrics.psnr(a, a) == math.inf


def test_luma_has_the_range_of_matlab():
    extremes = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    assert metrics.luma(extremes)[0] == pytest.approx([16, 235, 16 + 65.481])


def test_against_scikit_image(pair):
    a, b = pair
    assert metrics.psnr(a, b) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255), abs=1e-9)
    options = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    x, y = metrics.luma(a), metrics.luma(b)
    _, full = structural_similarity(x, y, full=True, **options)
    # Only windows that lie within the picture.
    assert metrics.ssim(x, y) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-9)
    _, full = structural_similarity(a, b, full=True, channel_axis=2, **options)
    assert metrics.ssim(a, b) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-9)


def test_ssim_of_equal_pictures_is_one(photos):
    assert metrics.ssim_y(photos[1], photos[1]) == pytest.approx(1)


def test_mask_scores():
    predicted = np.array([[True, True, False, False]])
    true = np.array([[True, False, True, True]])
    assert metrics.mask_scores(predicted, true) == (0.5, pytest.approx(1 / 3))
    assert metrics.mask_scores(~predicted & predicted, ~true & true) == (1.0, 1.0)


def test_error_reductions_of_the_paper():
    # SPAIR against RCDNet on SPANet: 44.10 / 0.9872 against 41.47 / 0.9834.
    assert metrics.error_reduction(41.47, 44.10) == pytest.approx(0.2612, abs=1e-4)
    assert metrics.dissimilarity_reduction(0.9834, 0.9872) == pytest.approx(0.2289, abs=1e-4)


def test_lab_against_scikit_image(photos):
    every = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    dark = every // 64
    for picture in (photos[0][:100], every, dark):
        np.testing.assert_allclose(metrics.lab(picture), rgb2lab(picture), atol=1e-9)


def grey(value):
    return np.full((256, 256, 3), value, np.uint8)


def test_errors_in_lab_are_those_of_all_pixels_of_a_region():
    """Pictures of grey differ in lightness alone, so both errors follow by hand."""
    lightness = {value: metrics.lab(grey(value))[0, 0, 0] for value in (100, 120, 160)}
    small, large = lightness[120] - lightness[100], lightness[160] - lightness[100]
    shadow = np.zeros((256, 256), bool)
    shadow[:64] = True
    partly = grey(120)
    partly[:64] = 160  # a large error in the shadow, a small one beside it
    sums = metrics.lab_sums(partly, grey(100), shadow)
    errors = metrics.lab_errors(sums)
    # The bicubic edge of the mask is not at work: nothing was resized. Grey is not quite without colour.
    assert errors.mae == pytest.approx({"S": large, "NS": small, "all": (large + 3 * small) / 4}, abs=0.01)
    assert errors.rmse["all"] == pytest.approx(math.sqrt((large**2 + 3 * small**2) / 4), abs=0.01)
    # A second picture that is all shadow: the shadow's pixels count alike, not its pictures.
    both = sums + metrics.lab_sums(grey(120), grey(100), np.ones((256, 256), bool))
    pooled = metrics.lab_errors(both)
    assert pooled.mae["S"] == pytest.approx((large + 4 * small) / 5, abs=0.01)
    assert pooled.mae["NS"] == pytest.approx(small, abs=0.01)
    nothing = metrics.lab_errors(metrics.lab_sums(grey(120), grey(100), np.zeros((256, 256), bool)))
    assert math.isnan(nothing.mae["S"])
    assert math.isnan(nothing.rmse["S"])
    assert metrics.lab_errors(metrics.lab_sums(partly, partly, shadow)).rmse["all"] == 0


def test_errors_in_lab_are_taken_at_256x256(photos, pair):
    from PIL import Image

    a, b = pair
    small = [np.asarray(Image.fromarray(p).resize((256, 256), Image.Resampling.BICUBIC)) for p in (a, b)]
    expected = np.abs(rgb2lab(small[0]) - rgb2lab(small[1])).sum(axis=2)
    shadow = np.zeros(a.shape[:2], bool)
    errors = metrics.lab_errors(metrics.lab_sums(a, b, shadow))
    assert errors.mae["all"] == errors.mae["NS"] == pytest.approx(expected.mean())


def test_unequal_and_tiny_pictures_are_refused():
    with pytest.raises(ValueError, match="differ in size"):
        metrics.psnr(np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="11x11"):
        metrics.ssim(np.zeros((10, 40)), np.zeros((10, 40)))
    with pytest.raises(ValueError, match="without pixels"):
        metrics.psnr(np.zeros((0, 4, 3)), np.zeros((0, 4, 3)))
    with pytest.raises(ValueError, match="RGB"):
        metrics.psnr_y(np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8))
    with pytest.raises(ValueError, match="RGB"):
        metrics.lab(np.zeros((20, 20, 3)))
    with pytest.raises(ValueError, match="differ in size"):
        metrics.lab_sums(grey(1), grey(2), np.zeros((4, 4), bool))
