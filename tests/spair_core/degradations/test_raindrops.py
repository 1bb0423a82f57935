from dataclasses import replace

import numpy as np
import pytest

from spair_core.degradations.raindrops import (
    DROPS,
    FLAT,
    LARGE,
    SPATTER,
    Domes,
    RaindropConfig,
    add_raindrops,
    drops_over,
)
from spair_core.masks import mask_from_pair

FAMILIES = {"spatter": SPATTER, "drops": DROPS, "large": LARGE, "flat": FLAT}
WET = RaindropConfig(dry=0)


def only(family, **changes):
    return replace(WET, families=(family,), weights=(1,), **({"misted": 0} | changes))


SPECK = replace(DROPS, coverage=(0, 0), radius=(0.5, 0.5), lumps=(0, 0), running=0, defocus=(0.1, 0.1))
"""A drop that is hardly one: what is seen is the mist beside it."""


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_masks_are_exact_and_dry_glass_is_clear(photos, family):
    clean = photos[0][:200, :240]
    shares = []
    for seed in range(8):
        wet, mask = add_raindrops(clean, np.random.default_rng(seed), only(family, threshold=0.1))
        assert (mask == mask_from_pair(wet, clean, 0.1)).all()
        shares.append(mask.mean())
        assert (wet == clean).all(axis=2).mean() > 0.05
    assert 0.03 < np.mean(shares) < 0.45


def test_the_seed_decides(photos):
    clean = photos[2][:100, :100]
    first, again, other = (add_raindrops(clean, np.random.default_rng(seed), WET)[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_some_pictures_stay_dry(photos):
    clean = photos[0][:40, :40]
    rng = np.random.default_rng(0)
    dry = [(add_raindrops(clean, rng, RaindropConfig(dry=0.5))[0] == clean).all() for _ in range(60)]
    assert 15 < sum(dry) < 50


def test_a_lone_dome_has_its_radius_and_slopes_to_its_rim():
    dome = Domes(np.array([[40.0, 50.0]]), np.array([20.0]))
    cover, slope = dome.surface((81, 101))
    assert cover.sum() == pytest.approx(np.pi * 20**2, rel=0.02)
    assert slope[:, 40, 50] == pytest.approx([0, 0], abs=0.01)
    assert slope[:, 40, 60] == pytest.approx([0, -0.5], abs=0.02)
    assert slope[:, 24, 50] == pytest.approx([0.8, 0], abs=0.02)


def test_domes_that_touch_merge():
    apart = Domes(np.array([[30.0, 20.0], [30.0, 70.0]]), np.array([10.0, 10.0])).surface((60, 90))[0]
    near = Domes(np.array([[30.0, 33.0], [30.0, 55.0]]), np.array([10.0, 10.0])).surface((60, 90))[0]
    assert apart[30, 45] == 0
    assert near[30, 44] == 1  # though 11 pixels from either middle


def test_a_drop_shows_the_scene_upside_down_and_left_right():
    """Before a picture that is red above and blue below, green on the right, a drop shows the reverse."""
    clean = np.zeros((160, 160, 3), np.uint8)
    clean[:80, :, 0] = 200
    clean[80:, :, 2] = 200
    clean[:, 80:, 1] = 200
    lone = replace(
        LARGE,
        coverage=(0, 0),
        radius=(20, 20),
        variety=0,
        lumps=(0, 0),
        defocus=(1, 1),
        running=0,
        view=(0.6, 0.6),
    )
    config = only(lone, overcast=(0, 0), rim=(0, 0), sunny=0)
    checked = 0
    for seed in range(80):
        wet, _ = add_raindrops(clean, np.random.default_rng(seed), config)
        lines = [np.flatnonzero((wet != clean).any(axis=(1 - axis, 2))) for axis in (0, 1)]
        y, x = (int(np.mean(line[[0, -1]])) if line.size else 0 for line in lines)
        if not (45 < y < 115 and 45 < x < 115):
            continue
        above, below, left, right = wet[y - 16, x], wet[y + 16, x], wet[y, x - 16], wet[y, x + 16]
        assert above[2] > 150 > 50 > above[0]
        assert below[0] > 150 > 50 > below[2]
        assert left[1] > 150 > 50 > right[1]
        checked += 1
    assert checked > 2


def test_flat_water_is_faint_on_what_is_alike_all_around():
    clean = np.full((200, 200, 3), 60, np.uint8)
    greatest = {}
    for view in (0.05, 0.5):
        family = replace(FLAT, view=(view, view))
        config = only(family, overcast=(0.4, 0.4), sky=(0.8, 0.8), rim=(0, 0), sunny=0)
        greatest[view] = int(add_raindrops(clean, np.random.default_rng(3), config)[0].max()) - 60
    assert 0 < 2 * greatest[0.05] < greatest[0.5]


def test_drops_are_brighter_below(photos):
    clean = np.full((200, 200, 3), 60, np.uint8)
    family = replace(LARGE, lumps=(0, 0), defocus=(1, 1), running=0.0, coverage=(0.3, 0.3))
    config = only(family, overcast=(0.3, 0.3), sky=(0.6, 0.6), rim=(0, 0), sunny=0)
    lower = []
    for seed in range(6):
        wet = add_raindrops(clean, np.random.default_rng(seed), config)[0].astype(int)[..., 1]
        rises = np.diff(wet, axis=0)
        inside = (wet[:-1] > 75) & (wet[1:] > 75) & (np.abs(rises) < 20)
        lower.append(rises[inside].mean())
    assert min(lower) > 0


def test_mist_lifts_the_dark_and_dims_the_bright_towards_the_light_around():
    clean = np.zeros((120, 160, 3), np.uint8)
    clean[:, 80:] = 200
    densest = []
    for seed in range(6):
        wet, mask = add_raindrops(
            clean, np.random.default_rng(seed), only(SPECK, misted=1, mist=(0.5, 0.5), sky=(0, 0))
        )
        assert wet[:, :80].max() < wet[:, 80:].min()
        assert np.median(wet[:, :80]) > 0
        assert np.median(wet[:, 80:]) < 200
        assert (mask == mask_from_pair(wet, clean)).all()
        densest.append(wet[:, :80].max())
    # In light, a half of what all send on average (a half of the bright side's), less the dark sky's share.
    assert 80 < max(densest) <= round(255 * ((200 / 255) ** 2.2 / 4) ** (1 / 2.2)) + 1


def test_mist_lies_smoothly_and_stands_still_on_the_glass():
    bright, dark = (np.full((120, 160, 3), level, np.uint8) for level in (230, 30))
    dark[60:] = 200
    config = only(SPECK, misted=1, mist=(0.5, 0.5))
    one, other, again = drops_over([dark, bright, dark], np.random.default_rng(5), config)
    assert (one == again).all()
    assert (one != dark).any()
    assert (other != bright).any()
    steps = np.abs(np.diff(one[:50].astype(int), axis=0))
    assert np.percentile(steps, 99) <= 6


def test_without_mist_what_no_drop_covers_is_as_it_was(photos):
    clean = photos[0][:120, :160]
    wet, _ = add_raindrops(clean, np.random.default_rng(0), only(SPECK))
    assert (wet != clean).any(axis=2).sum() < 40


def test_defocus_softens_edges(photos):
    clean = photos[3][:160, :160]
    sharp, soft = (
        add_raindrops(clean, np.random.default_rng(2), only(replace(DROPS, defocus=(r, r)), overcast=(1, 1)))[
            0
        ]
        for r in (0.4, 7.0)
    )
    steepest = [np.abs(np.diff(p.astype(int) - clean, axis=1)).mean() for p in (sharp, soft)]
    assert steepest[0] > 1.5 * steepest[1]


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (1, 50), (37, 21)])
def test_any_size(size):
    clean = np.full((*size, 3), 90, np.uint8)
    for seed in range(12):
        wet, mask = add_raindrops(clean, np.random.default_rng(seed), WET)
        assert wet.shape == clean.shape
        assert mask.shape == size
