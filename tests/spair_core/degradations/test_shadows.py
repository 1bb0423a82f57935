from dataclasses import replace

import numpy as np
import pytest

from spair_core.degradations.shadows import ShadowConfig, ShadowMasks, add_shadow
from spair_core.light import linear
from spair_core.masks import mask_from_pair

CAST = ShadowConfig(dry=0)
SHAPES = {"blob": (1, 0, 0), "edges": (0, 1, 0), "foliage": (0, 0, 1)}


@pytest.mark.parametrize("weights", SHAPES.values(), ids=SHAPES)
def test_a_shadow_only_darkens_and_its_mask_is_exact(photos, weights):
    clean = photos[0][:160, :200]
    shares = []
    for seed in range(12):
        dark, mask = add_shadow(
            clean, np.random.default_rng(seed), replace(CAST, weights=weights, threshold=0.1)
        )
        assert (dark <= clean).all()
        assert (mask == mask_from_pair(dark, clean, 0.1)).all()
        shares.append(mask.mean())
    assert 0.08 < np.mean(shares) < 0.6


def test_the_seed_decides(photos):
    clean = photos[1][:60, :70]
    first, again, other = (add_shadow(clean, np.random.default_rng(seed), CAST)[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_the_umbra_keeps_the_drawn_share_of_light_and_more_of_the_blue():
    clean = np.full((120, 120, 3), 200, np.uint8)
    config = replace(CAST, remaining=(0.3, 0.3), blueness=(0.2, 0.2), unevenness=0, penumbra=(1, 1))
    dark, _ = add_shadow(clean, np.random.default_rng(0), config)
    share = (linear(dark) / linear(clean)).reshape(-1, 3)
    assert share.min(0) == pytest.approx([0.24, 0.3, 0.36], abs=0.01)
    assert share.max(0) == pytest.approx([1, 1, 1], abs=0.01)


def test_a_penumbra_widens_across_the_picture():
    half = np.zeros((200, 200), bool)
    half[:, :100] = True
    config = replace(CAST, penumbra=(0.7, 20), remaining=(0.1, 0.1), unevenness=0)
    clean = np.full((200, 200, 3), 220, np.uint8)
    ratios = []
    for seed in range(20):
        dark, _ = ShadowMasks([half], config).add(clean, np.random.default_rng(seed))
        light = linear(dark)[..., 1] / linear(clean)[..., 1]
        widths = ((light > 0.2) & (light < 0.9)).sum(axis=1)
        ratios.append(widths.max() / max(widths.min(), 1))
    assert max(ratios) > 3


def test_given_masks_are_cast(photos):
    clean = photos[2][:90, :80]
    mask = np.zeros((40, 50), bool)
    mask[10:30, 10:40] = True
    shadows = ShadowMasks([mask], CAST)
    dark, found = shadows.add(clean, np.random.default_rng(3))
    again, _ = shadows.add(clean, np.random.default_rng(3))
    assert (dark == again).all()
    assert (dark <= clean).all()
    assert found.any()
    assert (found == mask_from_pair(dark, clean)).all()
    with pytest.raises(ValueError, match="no masks"):
        ShadowMasks([])


def test_some_pictures_stay_in_the_sun(photos):
    clean = photos[0][:30, :30]
    rng = np.random.default_rng(0)
    lit = [(add_shadow(clean, rng, ShadowConfig(dry=0.5))[0] == clean).all() for _ in range(60)]
    assert 15 < sum(lit) < 45


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (1, 50), (37, 21)])
def test_any_size(size):
    clean = np.full((*size, 3), 150, np.uint8)
    for seed in range(12):
        dark, mask = add_shadow(clean, np.random.default_rng(seed), CAST)
        assert dark.shape == clean.shape
        assert mask.shape == size
