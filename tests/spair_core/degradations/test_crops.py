from dataclasses import replace

import numpy as np
import pytest

from spair_core.degradations.catalogue import DEGRADATIONS
from spair_core.degradations.crops import Example, degrade, random_crop, random_flip
from spair_core.degradations.lookalikes import add_streak_lookalikes
from spair_core.degradations.motion import ShakeKernels
from spair_core.degradations.rain import LEARNT, RainConfig, StreakLayers, add_rain
from spair_core.degradations.shadows import ShadowMasks
from spair_core.footage import moved
from spair_core.masks import mask_from_pair


@pytest.fixture
def example():
    """A pair in which every pixel of the clean picture tells its place."""
    clean = np.zeros((30, 20, 3), np.uint8)
    clean[..., 0], clean[..., 1] = np.arange(30)[:, None], np.arange(20)
    return Example(clean + 100, clean, clean[..., 0] > 14)


def aligned(crop):
    return (crop.degraded == crop.clean + 100).all() and (crop.mask == (crop.clean[..., 0] > 14)).all()


def test_crops_are_cut_at_one_place(example):
    crop = random_crop(example, 12, np.random.default_rng(0))
    top, left = crop.clean[0, 0, :2]
    assert (crop.clean == example.clean[top : top + 12, left : left + 12]).all()
    assert aligned(crop)


def test_every_place_is_drawn(example):
    rng = np.random.default_rng(0)
    corners = {tuple(random_crop(example, 18, rng).clean[0, 0, :2]) for _ in range(800)}
    assert corners == {(y, x) for y in range(13) for x in range(3)}


def test_smaller_pictures_are_continued_by_reflection(example):
    crop = random_crop(example, 50, np.random.default_rng(0))
    assert crop.clean.shape == (50, 50, 3)
    assert crop.clean[[29, 30, 49], 0, 0].tolist() == [29, 29, 10]
    assert crop.clean[0, [19, 20, 39, 40], 1].tolist() == [19, 19, 0, 0]
    assert aligned(crop)


def test_flips_turn_all_parts_alike(example):
    rng = np.random.default_rng(0)
    flipped = [random_flip(example, rng) for _ in range(40)]
    assert all(aligned(one) for one in flipped)
    assert {tuple(one.clean[0, 0, :2]) for one in flipped} == {(0, 0), (29, 0), (0, 19), (29, 19)}


def test_what_an_example_lacks_stays_away(example):
    crop = random_flip(
        random_crop(Example(None, example.clean), 8, np.random.default_rng(0)), np.random.default_rng(1)
    )
    assert crop.degraded is None
    assert crop.mask is None


def test_cropping_leaves_the_example_as_it_was(example):
    before = example.clean.copy()
    crop = degrade(random_crop(example, 16, np.random.default_rng(0)), np.random.default_rng(1), "rain")
    crop.degraded[:] = 0
    assert (example.clean == before).all()


@pytest.mark.parametrize("task", [one.name for one in DEGRADATIONS])
def test_degrading_fills_in_picture_and_mask(photos, task):
    clean = photos[0][120:220, 200:300]
    changes = 0
    for seed in range(6):
        made, again = (
            degrade(Example(None, clean), np.random.default_rng(seed), task, dry=0) for _ in range(2)
        )
        assert (made.degraded == again.degraded).all()
        changed = mask_from_pair(made.degraded, made.clean)
        # A veil of rain, and nothing else, changes what is not marked, and can take back what is: a faint one
        # a few pixels.
        veiled = task == "rain" and (made.degraded != made.clean).any(axis=2).mean() > 0.99
        assert veiled or (made.mask != changed).mean() <= (0.001 if task == "rain" else 0)
        changes += made.mask.any()
    assert changes > 4


@pytest.mark.parametrize("task", [one.name for one in DEGRADATIONS])
def test_a_share_stays_as_it_is(photos, task):
    clean = photos[0][:40, :40]
    rng = np.random.default_rng(0)
    made = [degrade(Example(None, clean), rng, task, dry=0.5) for _ in range(60)]
    assert 15 < sum((one.degraded == one.clean).all() for one in made) < 50


def test_rain_is_drawn_as_add_rain_draws_it(photos):
    clean = photos[0][:64, :64]
    for seed in range(8):
        rng = np.random.default_rng(seed)
        rainy, mask = add_rain(add_streak_lookalikes(clean, rng), rng, replace(LEARNT, threshold=0.1))
        made = degrade(Example(None, clean), np.random.default_rng(seed), "rain", threshold=0.1)
        assert (made.degraded == rainy).all()
        assert (made.mask == mask).all()


def test_real_layers_are_laid_as_the_generator_says(photos):
    clean = photos[0][:64, :64]
    layers = StreakLayers([(add_rain(clean, np.random.default_rng(0), RainConfig(dry=0))[0], clean)])
    laid = 0
    for seed in range(20):
        made = degrade(Example(None, clean), np.random.default_rng(seed), "rain", material={"rain": layers})
        rng = np.random.default_rng(seed)
        seen = add_streak_lookalikes(clean, rng)
        chosen = rng.random() < 0.4
        laid += chosen
        again = layers.add(seen, rng, 0.05) if chosen else add_rain(seen, rng, LEARNT)
        assert (made.degraded == again[0]).all()
    assert 3 < laid < 15


@pytest.mark.parametrize(
    ("task", "material"),
    [
        ("shadow", {"shadow": ShadowMasks([np.ones((9, 9), bool)])}),
        ("blur", {"blur": ShakeKernels([np.eye(9)])}),
    ],
)
def test_real_material_is_used_for_some(photos, task, material):
    clean = photos[0][120:184, 200:264]
    rng = np.random.default_rng(0)
    made = [degrade(Example(None, clean), rng, task, dry=1, material=material) for _ in range(60)]
    assert 10 < sum(one.mask.any() for one in made) < 40  # the others were to be drawn, and were drawn dry


def test_an_unknown_task_is_refused(example):
    *others, last = (one.name for one in DEGRADATIONS)
    known = f"{', '.join(others)} or {last}"
    with pytest.raises(ValueError, match=rf"the task 'none'.*--task {known}$"):
        degrade(example, np.random.default_rng(0), "none")


def test_unequal_sizes_are_refused():
    clean = np.zeros((5, 5, 3), np.uint8)
    with pytest.raises(ValueError, match=r"degraded picture is 4x5, the clean picture 5x5"):
        Example(np.zeros((5, 4, 3), np.uint8), clean)
    with pytest.raises(ValueError, match=r"mask is 5x6"):
        Example(clean, clean, np.zeros((6, 5), bool))


def test_a_joint_task_gives_one_of_its_parts_or_all(photos):
    clean = photos[1][:64, :64]
    kinds = set()
    for seed in range(40):
        made = degrade(Example(None, clean), np.random.default_rng(seed), "rain+raindrop", dry=0.2)
        assert (made.mask == mask_from_pair(made.degraded, made.clean)).all()
        if not made.mask.any():
            kinds.add("dry")
            continue
        change = made.degraded.astype(int) - made.clean
        darker, brighter = (change < -20).any(), (change > 20).any()
        kinds.add((bool(darker), bool(brighter)))
    assert "dry" in kinds
    assert len(kinds) >= 3
    with pytest.raises(ValueError, match="snow"):
        degrade(Example(None, clean), np.random.default_rng(0), "rain+snow")


def test_a_frame_is_cut_flipped_and_degraded_with_those_around_it(photos):
    rng = np.random.default_rng(0)
    window = moved(photos[0], 90, rng)
    frame = window.pixels[window.own[0]]
    crop = random_flip(random_crop(Example(None, frame, window=window), 48, rng), rng)
    assert crop.window.pixels.shape == (len(window.pixels), 48, 48, 3)
    assert (crop.window.pixels[crop.window.own[0]] == crop.clean).all()
    made = degrade(crop, np.random.default_rng(2), "rain", dry=0)
    assert made.mask.any()
    assert (made.shown.pixels[made.shown.own[0]] == made.degraded).all()
    dry = degrade(crop, np.random.default_rng(2), "rain", dry=1)
    assert not dry.mask.any()


def test_frames_are_never_turned_upside_down(photos):
    window = moved(photos[0], 40, np.random.default_rng(0))
    example = Example(None, window.pixels[window.own[0]], window=window)
    flipped = [random_flip(example, np.random.default_rng(seed)).clean for seed in range(12)]
    assert all((f == example.clean).all() or (f == example.clean[:, ::-1]).all() for f in flipped)
    assert any((f != example.clean).any() for f in flipped)


def test_a_picture_is_shown_as_it_is(photos):
    example = Example(photos[0][:20, :20], photos[1][:20, :20])
    assert (example.shown.pixels[0] == photos[0][:20, :20]).all()
    assert example.shown.neighbours == ((),)
