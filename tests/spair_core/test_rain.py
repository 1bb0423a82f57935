import numpy as np
import pytest

from spair_core.crops import Example, degrade, random_crop, random_flip
from spair_core.masks import mask_from_pair
from spair_core.rain import BROAD, DRIZZLE, HEAVY, SPARSE, RainConfig, StreakLayers, add_rain


@pytest.mark.parametrize("family", [SPARSE, HEAVY, BROAD, DRIZZLE])
def test_rain_brightens_and_its_mask_is_exact(photos, family):
    clean = photos[0][:200, :240]
    config = RainConfig(families=(family,), weights=(1,), dry=0, haze=0)
    rainy, mask = add_rain(clean, np.random.default_rng(3), config)
    assert (rainy.astype(int) - clean >= 0).all()
    assert (mask == mask_from_pair(rainy, clean, config.threshold)).all()
    assert 0.001 < mask.mean() < 0.95


def test_the_seed_decides(photos):
    clean = photos[2][:100, :100]
    first, again, other = (
        add_rain(clean, np.random.default_rng(seed), RainConfig(dry=0))[0] for seed in (1, 1, 2)
    )
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


def test_real_layers_are_laid_over_other_pictures(photos):
    clean = photos[0][:80, :80]
    rainy, _ = add_rain(clean, np.random.default_rng(0), RainConfig(families=(HEAVY,), weights=(1,), dry=0))
    layers = StreakLayers([(rainy, clean)])
    other = photos[1][:200, :200]  # larger than the layer, which is mirrored
    added, mask = layers.add(other, np.random.default_rng(1))
    assert added.shape == other.shape
    assert mask.any()
    assert (mask == mask_from_pair(added, other)).all()
    with pytest.raises(ValueError, match="no pairs"):
        StreakLayers([])


def test_crops_stay_aligned_and_small_pictures_are_continued():
    clean = np.arange(30 * 20 * 3, dtype=np.uint8).reshape(30, 20, 3)
    example = Example(clean // 2, clean, clean[..., 0] > 128)
    crop = random_flip(random_crop(example, 24, np.random.default_rng(0)), np.random.default_rng(1))
    assert crop.clean.shape == (24, 24, 3)
    assert (crop.degraded == crop.clean // 2).all()
    assert (crop.mask == (crop.clean[..., 0] > 128)).all()


def test_degrading_fills_in_picture_and_mask(photos):
    made = degrade(Example(None, photos[0][:64, :64]), np.random.default_rng(0), RainConfig(dry=0))
    assert (made.mask == mask_from_pair(made.degraded, made.clean)).all()


def test_unequal_sizes_are_refused():
    with pytest.raises(ValueError, match="degraded picture is 4x5"):
        Example(np.zeros((5, 4, 3), np.uint8), np.zeros((5, 5, 3), np.uint8))
