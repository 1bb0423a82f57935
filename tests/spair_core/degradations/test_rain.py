import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from spair_core.degradations.rain import (
    BROAD,
    DENSE,
    DRIZZLE,
    HEAVY,
    LIGHT,
    RainConfig,
    StreakLayers,
    Streaks,
    add_rain,
    draw_streaks,
)
from spair_core.masks import mask_from_pair

FAMILIES = {"light": LIGHT, "heavy": HEAVY, "dense": DENSE, "broad": BROAD, "drizzle": DRIZZLE}
WET = RainConfig(dry=0, haze=0)


def only(family, **changes):
    return replace(WET, families=(family,), weights=(1,), **changes)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_rain_brightens_and_its_mask_is_exact(photos, family):
    clean = photos[0][:200, :240]
    rainy, mask = add_rain(clean, np.random.default_rng(3), only(family))
    assert (rainy >= clean).all()
    assert (mask == mask_from_pair(rainy, clean)).all()
    assert 0.001 < mask.mean() < 0.95


def test_the_families_are_as_dense_as_the_sets_they_are_after():
    """The share of marked pixels on a dark picture, in the mean over seeds."""
    clean = np.full((160, 160, 3), 60, np.uint8)
    shares = {
        name: np.mean([add_rain(clean, np.random.default_rng(seed), only(f))[1].mean() for seed in range(24)])
        for name, f in FAMILIES.items()
    }
    assert 0.05 < shares["light"] < 0.25
    assert 0.6 < shares["heavy"] < 0.9
    assert 0.4 < shares["dense"] < 0.85
    assert 0.1 < shares["broad"] < 0.4
    assert 0.05 < shares["drizzle"] < 0.4


def test_the_seed_decides(photos):
    clean = photos[2][:100, :100]
    first, again, other = (add_rain(clean, np.random.default_rng(seed), WET)[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_some_pictures_stay_dry(photos):
    clean = photos[0][:40, :40]
    rng = np.random.default_rng(0)
    dry = [not add_rain(clean, rng, RainConfig(dry=0.5))[1].any() for _ in range(60)]
    assert 15 < sum(dry) < 50
    same, mask = add_rain(clean, rng, RainConfig(dry=1))
    assert (same == clean).all()
    assert not mask.any()


def test_a_veil_is_not_counted_as_streaks():
    clean = np.zeros((80, 80, 3), np.uint8)
    config = only(LIGHT, haze=1, haze_strength=0.5)
    for seed in range(8):
        rainy, mask = add_rain(clean, np.random.default_rng(seed), config)
        veil = rainy[~mask].min()
        assert mask.mean() < 0.5
        assert (rainy[~mask] <= veil + 13).all()
        assert (rainy[mask].max(axis=1) > veil + 12).all()
    assert veil > 13  # it would have been over the threshold itself


def test_screened_streaks_fade_on_bright_ground_and_added_ones_do_not():
    ground = np.full((64, 64, 3), 40, np.uint8)
    ground[:, 32:] = 150
    for screen, least, most in ((1, 0.4, 0.6), (0, 0.9, 1.1)):
        config = only(replace(DENSE, brightness=(0.1, 0.15), screen=0.5), screen=screen)
        ratios = []
        for seed in range(6):
            added = add_rain(ground, np.random.default_rng(seed), config)[0].astype(float) - ground
            ratios.append(added[:, 32:].mean() / added[:, :32].mean())
        assert least < np.mean(ratios) < most


def streak(angle, length=30.0, width=2.0, taper=0.0, size=(64, 64), softness=1.0):
    one = Streaks(
        np.array([[size[0] / 2 - 0.5, size[1] / 2 - 0.5]]),
        np.deg2rad([angle]),
        np.array([length]),
        np.array([0.5]),
        width,
        softness,
        taper,
    )
    return one.drawn(size).astype(np.float64)


@pytest.mark.parametrize("angle", [0, 20, -45, 60])
def test_a_streak_has_its_angle_length_and_brightness(angle):
    drawn = streak(angle)
    y, x = np.indices(drawn.shape) - 31.5
    mass = drawn.sum()
    yy, xx, xy = ((drawn * part).sum() / mass for part in (y * y, x * x, x * y))
    assert np.rad2deg(0.5 * np.arctan2(2 * xy, yy - xx)) == pytest.approx(angle, abs=1)
    assert mass == pytest.approx(0.5 * 30 * 2, rel=0.08)
    assert drawn.max() == pytest.approx(0.5, abs=0.01)
    # A uniform bar of length 30 has variance 30^2 / 12 along itself.
    assert yy + xx == pytest.approx(30**2 / 12, rel=0.12)


def test_thin_streaks_are_dim_and_soft_ones_spread():
    assert streak(0, width=0.5).max() <= 0.25 + 1e-6
    sharp, soft = streak(0), streak(0, softness=4.0)
    assert soft.sum() == pytest.approx(sharp.sum(), rel=0.02)
    assert (soft > 0.01).sum() > 1.5 * (sharp > 0.01).sum()


def test_tapered_streaks_fade_towards_their_ends():
    along = streak(0, taper=0.5).sum(axis=1)
    assert along[31] > 1.8 * along[23] > 0
    assert along[31] == pytest.approx(streak(0).sum(axis=1)[31], rel=0.1)


@pytest.mark.parametrize("angle", [-70.0, -20.0, 0.0, 44.0, 50.0, 89.0, 110.0])
def test_layers_keep_their_direction(angle):
    """The long axis of the autocorrelation lies along the streaks."""
    family = replace(LIGHT, angle=(angle, angle), coverage=(0.1, 0.1), angle_spread=0.0, length=(40, 40))
    layer = draw_streaks((256, 256), np.random.default_rng(0), family).astype(np.float64)
    spectrum = np.abs(np.fft.fft2(layer - layer.mean())) ** 2
    likeness = np.fft.fftshift(np.fft.ifft2(spectrum).real).clip(0) ** 2
    y, x = np.indices(likeness.shape) - 128
    likeness[y * y + x * x > 16**2] = 0
    yy, xx, xy = ((likeness * part).sum() for part in (y * y, x * x, x * y))
    found = np.rad2deg(0.5 * np.arctan2(2 * xy, yy - xx))
    assert abs((found - angle + 90) % 180 - 90) < 1


def test_streaks_reach_the_borders():
    family = replace(HEAVY, coverage=(2, 2))
    mean = sum(draw_streaks((96, 96), np.random.default_rng(seed), family) for seed in range(30))
    assert mean[:4].mean() == pytest.approx(mean.mean(), rel=0.25)
    assert mean[:, :4].mean() == pytest.approx(mean.mean(), rel=0.25)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (11, 13)])
def test_any_size(size):
    clean = np.full((*size, 3), 90, np.uint8)
    for seed in range(6):
        rainy, mask = add_rain(clean, np.random.default_rng(seed), RainConfig())
        assert rainy.shape == clean.shape
        assert mask.shape == size


def test_real_layers_are_laid_over_other_pictures(photos):
    clean = photos[0][:80, :80]
    rainy, _ = add_rain(clean, np.random.default_rng(0), only(HEAVY))
    layers = StreakLayers([(rainy, clean)])
    other = photos[1][:200, :200]  # larger than the layer, which is mirrored
    added, mask = layers.add(other, np.random.default_rng(1))
    again, _ = layers.add(other, np.random.default_rng(1))
    assert added.shape == other.shape
    assert mask.any()
    assert (added >= other).all()
    assert (added == again).all()
    assert (mask == mask_from_pair(added, other)).all()
    with pytest.raises(ValueError, match="no pairs"):
        StreakLayers([])


def test_layers_keep_streaks_sharp_and_leave_jpeg_noise_out(photos):
    clean = photos[3][:160, :160]
    rainy, mask = add_rain(clean, np.random.default_rng(2), only(LIGHT, screen=0))

    def jpeg(pixels):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=92, subsampling=0)
        return np.asarray(Image.open(stream))

    exact = StreakLayers([(rainy, clean)]).layers[0]
    streaks = (rainy.astype(int) - clean).max(axis=2)
    assert (exact[streaks > 40] > 0.9 * streaks[streaks > 40]).mean() > 0.95
    noisy = np.maximum(jpeg(rainy).astype(int) - clean, 0).max(axis=2)
    layer = StreakLayers([(jpeg(rainy), clean)]).layers[0]
    assert layer[~mask].mean() < 0.5 * noisy[~mask].mean()
    assert layer[mask].mean() > 0.9 * noisy[mask].mean()
