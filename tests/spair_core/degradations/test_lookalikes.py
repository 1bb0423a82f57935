import cv2
import numpy as np
import pytest

from spair_core.degradations.lookalikes import (
    CloudConfig,
    FrontConfig,
    add_branches,
    add_clouds,
    add_streak_lookalikes,
    draw_branches,
    draw_clouds,
    pass_front,
)


def test_branches_hide_the_share_that_is_asked_for_and_leave_gaps():
    for coverage in (0.2, 0.5):
        hidden = draw_branches((180, 240), np.random.default_rng(1), coverage, (0.02, 0.06))
        assert hidden.shape == (180, 240)
        assert (hidden.min(), hidden.max()) == (0, 1)
        assert coverage <= hidden.mean() < coverage + 0.15  # the last limb may bring it above
        gaps, _ = cv2.connectedComponents((hidden < 0.5).astype(np.uint8), connectivity=4)
        assert gaps > 20


def test_some_clean_pictures_stand_behind_branches(photos):
    clean = photos[1][:96, :128]
    made = [add_branches(clean, np.random.default_rng(seed)) for seed in range(60)]
    behind = [one for one in made if (one != clean).any()]
    assert 4 < len(behind) < 25
    assert (add_branches(clean, np.random.default_rng(5)) == made[5]).all()
    darker = [np.mean(one.mean(2) < 90) for one in behind]
    assert np.mean(darker) > np.mean(clean.mean(2) < 90)


def test_clouds_hide_the_share_of_the_sky_that_is_asked_for():
    for share in (0.1, 0.5):
        config = CloudConfig(cover=(share, share), edge=(0.1, 0.1))
        hidden = draw_clouds((180, 240), np.random.default_rng(2), config)
        assert hidden.shape == (180, 240, 1)
        assert hidden.min() == 0
        assert 0.5 <= hidden.max() <= 1
        assert abs((hidden > 0).mean() - share) < 0.01


def test_clouds_of_any_size_fill_pictures_of_any_size():
    rng = np.random.default_rng(3)
    for size in ((16, 16), (40, 301), (301, 40)):
        for lumps in (12, 400):
            assert np.isfinite(draw_clouds(size, rng, CloudConfig(size=(lumps, lumps)))).all()


def test_some_clean_pictures_have_clouds_in_their_sky():
    blue = np.full((96, 128, 3), (90, 140, 220), dtype=np.uint8)
    made = [add_clouds(blue, np.random.default_rng(seed)) for seed in range(80)]
    cloudy = [one for one in made if (one != blue).any()]
    assert 4 < len(cloudy) < 25
    assert (add_clouds(blue, np.random.default_rng(5)) == made[5]).all()


def test_clouds_stand_where_it_is_even_and_bright():
    picture = np.random.default_rng(4).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    picture[:48] = (90, 140, 220)
    config = CloudConfig(cloudy=1.0, opened=0.0, cover=(0.5, 0.5))
    changed = (add_clouds(picture, np.random.default_rng(5), config) != picture).any(2)
    assert changed[:40].mean() > 0.2
    assert not changed[60:].any()


def test_an_open_sky_is_above_its_horizon():
    picture = np.random.default_rng(6).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    config = CloudConfig(cloudy=1.0, opened=1.0)
    for seed in range(6):
        changed = (add_clouds(picture, np.random.default_rng(seed), config) != picture).any(2)
        assert changed[:5].mean() > 0.9


def test_a_front_comes_nearer_from_frame_to_frame():
    """Over a black scene, lit bars: they go outward from the vanishing point, faster where they are near."""
    black = np.zeros((120, 160, 3), dtype=np.uint8)
    config = FrontConfig(fronted=1, panes=0, leaning=0, speed=(3, 3), apart=(30, 60), bar=(2, 4), high=(1, 1))
    outward = []
    for seed in range(12):
        first, second = pass_front([black, black], [0, 0.5], np.random.default_rng(seed), config)
        before, after = (np.flatnonzero(frame.max(axis=(0, 2)) > 60) for frame in (first, second))
        if len(before) and len(after):
            outward.append(abs(after.mean() - before.mean()))
    assert len(outward) > 6
    assert np.median(outward) > 0.2


def test_a_front_that_is_not_passed_stands_still(photos):
    clean = photos[1][:96, :128]
    config = FrontConfig(fronted=1)
    for seed in range(6):
        one, same = pass_front([clean, clean], [2, 2], np.random.default_rng(seed), config)
        assert (one == same).all()


def test_some_clean_pictures_have_a_front(photos):
    clean = photos[1][:96, :128]
    made = [add_streak_lookalikes(clean, np.random.default_rng(seed)) for seed in range(80)]
    fronted = [one for one in made if (one != clean).any()]
    assert 4 < len(fronted) < 25
    assert (add_streak_lookalikes(clean, np.random.default_rng(5)) == made[5]).all()
    # Bars: most of what changes is upright, so differs more from left to right than from above to below.
    across, down = (
        np.mean([np.abs(np.diff(one.astype(int) - clean, axis=axis)).mean() for one in fronted])
        for axis in (1, 0)
    )
    assert across > 1.2 * down


@pytest.mark.parametrize("size", [(16, 16), (40, 301), (301, 40)])
def test_fronts_are_drawn_into_pictures_of_any_size(size):
    grey = np.full((*size, 3), 120, dtype=np.uint8)
    for seed in range(20):
        frames = pass_front([grey] * 3, [-15, 0, 15], np.random.default_rng(seed), FrontConfig(fronted=1))
        assert all(frame.shape == grey.shape and frame.dtype == np.uint8 for frame in frames)
