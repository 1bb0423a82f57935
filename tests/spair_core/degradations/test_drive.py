from dataclasses import replace

import numpy as np
import pytest

from spair_core.degradations.catalogue import DEGRADATIONS
from spair_core.degradations.drive import DriveConfig, coded, degrade_window, draw_fixture
from spair_core.degradations.lookalikes import FrontConfig
from spair_core.footage import Window, moved, references

NO_FRONT = FrontConfig(fronted=0)
PLAIN = DriveConfig(NO_FRONT, fixtures=0, night=0, exposures=0, noise=0, coded=0, wiper=0, one_sided=0)
OVERS = [one for one in DEGRADATIONS if one.over]


@pytest.fixture(scope="module")
def window(photos):
    return moved(photos[1], 96, np.random.default_rng(5))


@pytest.fixture(params=OVERS, ids=lambda one: one.name)
def over(request):
    return request.param.over


def test_what_is_of_footage():
    assert [one.name for one in OVERS] == ["rain", "raindrop"]


def test_the_generator_decides_everything(window, over):
    for seed in range(6):
        made = [degrade_window(window, over, np.random.default_rng(seed), 0.05) for _ in range(2)]
        (beside, clean, mask), (again, same, equal) = made
        assert (beside.pixels == again.pixels).all()
        assert (clean == same).all()
        assert (mask == equal).all()
        assert beside.pixels.dtype == clean.dtype == np.uint8
        assert beside.pixels.shape == window.pixels.shape


def test_a_dry_drive_is_left_as_it_is(window):
    beside, clean, mask = degrade_window(window, None, np.random.default_rng(0), 0.05, PLAIN)
    assert (beside.pixels == window.pixels).all()
    assert (clean == window.pixels[window.own[0]]).all()
    assert not mask.any()


def test_streaks_are_new_in_each_frame_and_drops_the_same(window):
    still = window.pixels[:1].repeat(4, axis=0)
    by_name = {one.name: one.over for one in OVERS}
    rain, drops = (by_name[name](list(still), np.random.default_rng(1)) for name in ("rain", "raindrop"))
    assert all((rain[0] != frame).any() for frame in rain[1:])
    assert all((drops[0] == frame).all() for frame in drops)
    assert (drops[0] != still[0]).any()


@pytest.mark.long
def test_the_mask_is_of_the_weather_alone(window, over):
    """Fronts, noise, coding, night and fixtures change clean and degraded frames alike."""
    config = DriveConfig(FrontConfig(fronted=1), fixtures=1, night=1, noise=1, coded=1, exposures=1)
    for seed in range(4):
        beside, clean, mask = degrade_window(window, None, np.random.default_rng(seed), 0.05, config)
        assert not mask.any()
        assert (beside.pixels[beside.own[0]] == clean).all()
    inside, outside = [], []
    for seed in range(6):
        beside, clean, mask = degrade_window(window, over, np.random.default_rng(seed), 0.05, config)
        changed = np.abs(beside.pixels[beside.own[0]].astype(int) - clean).mean(axis=2)
        inside.append(changed[mask])
        outside.append(changed[~mask])
    assert np.concatenate(inside).mean() > 2 * np.concatenate(outside).mean()


def test_fixtures_stand_still_in_both_references(window):
    config = DriveConfig(NO_FRONT, fixtures=1, night=0, exposures=0, noise=0, coded=0, wiper=0, one_sided=0)
    for seed in range(8):
        beside, clean, _ = degrade_window(window, None, np.random.default_rng(seed), 0.05, config)
        put = np.abs(clean.astype(int) - window.pixels[window.own[0]]).max(axis=2) > 60
        if put.sum() > 200:
            fixed = next(references(beside))[..., 3:]
            assert np.median(np.abs(fixed.astype(int) - clean).max(axis=2)[put]) < 12


def test_every_fixture_has_a_cover_and_a_colour():
    rng = np.random.default_rng(0)
    drawn = [draw_fixture((80, 120), rng) for _ in range(60)]
    assert all(cover.shape == (80, 120, 1) and colour.shape == (80, 120, 3) for cover, colour in drawn)
    assert all(cover.min() >= 0 and cover.max() <= 1 for cover, _ in drawn)
    assert all(colour.min() >= 0 and colour.max() <= 255 for _, colour in drawn)
    assert np.mean([cover.max() > 0.3 for cover, _ in drawn]) > 0.8


def test_a_wiper_never_hides_the_frame_itself(window):
    config = DriveConfig(fixtures=0, night=0, exposures=0, noise=0, coded=0, wiper=1, one_sided=0)
    beside, clean, _ = degrade_window(window, None, np.random.default_rng(0), 0.05, config)
    wiped = [(frame != before).any() for frame, before in zip(beside.pixels, window.pixels, strict=True)]
    assert sum(wiped) == 1
    assert not wiped[beside.own[0]]
    assert (beside.pixels[beside.own[0]] == clean).all()


def test_a_frame_without_others_around_it_is_degraded_as_it_is(window, over):
    """As those of a clip of one frame a second are."""
    alone = Window.alone(window.pixels[:1])
    config = DriveConfig(wiper=1, one_sided=1, noise=1, coded=1)
    beside, clean, mask = degrade_window(alone, over, np.random.default_rng(0), 0.05, config)
    assert beside.pixels.shape == alone.pixels.shape
    assert clean.shape == (*mask.shape, 3)
    assert mask.any()


def test_at_an_end_of_a_clip_one_side_is_missing(window):
    config = DriveConfig(fixtures=0, night=0, exposures=0, noise=0, coded=0, wiper=0, one_sided=1)
    for seed in range(4):
        beside, _, _ = degrade_window(window, None, np.random.default_rng(seed), 0.05, config)
        sides = {np.sign(k - beside.own[0]) for k in (*beside.neighbours[0], *beside.beats[0])} - {0}
        assert len(sides) == 1


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_coding_keeps_size_and_order(photos, size):
    frames = [photos[k][: size[0], : size[1]] for k in (0, 1)]
    again = coded(frames, 22)
    assert [frame.shape for frame in again] == [(*size, 3)] * 2
    for frame, before in zip(again, frames, strict=True):
        assert 0 < np.abs(frame.astype(int) - before).mean() < 8
    rough = coded(frames, 40)
    assert np.abs(rough[0].astype(int) - frames[0]).mean() > np.abs(again[0].astype(int) - frames[0]).mean()


def test_a_front_passes_before_some_drives(window):
    config = replace(PLAIN, front=FrontConfig(fronted=0.5))
    here, passed = window.own[0], 0
    for seed in range(12):
        beside, clean, mask = degrade_window(window, None, np.random.default_rng(seed), 0.05, config)
        put = (beside.pixels != window.pixels).any(axis=(1, 2, 3))
        assert not mask.any()
        assert (beside.pixels[here] == clean).all()
        passed += put.any()
    assert 2 < passed < 10
