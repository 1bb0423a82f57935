import numpy as np
import pytest

from spair_core.crops import Example, degrade, random_crop, random_flip
from spair_core.masks import mask_from_pair
from spair_core.rain import HEAVY, RainConfig, StreakLayers, add_rain


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
    crop = degrade(random_crop(example, 16, np.random.default_rng(0)), np.random.default_rng(1))
    crop.degraded[:] = 0
    assert (example.clean == before).all()


def test_degrading_fills_in_picture_and_mask(photos):
    clean = photos[0][:64, :64]
    config = RainConfig(dry=0, haze=0)
    made = degrade(Example(None, clean), np.random.default_rng(0), config)
    again = degrade(Example(None, clean), np.random.default_rng(0), config)
    assert made.mask.any()
    assert (made.mask == mask_from_pair(made.degraded, made.clean)).all()
    assert (made.degraded == again.degraded).all()


def test_real_layers_are_used_for_some(photos):
    clean = photos[0][:64, :64]
    rainy, _ = add_rain(clean, np.random.default_rng(0), RainConfig((HEAVY,), (1,), dry=0))
    layers = StreakLayers([(rainy, clean)])
    rng = np.random.default_rng(0)
    wet = [degrade(Example(None, clean), rng, RainConfig(dry=1), layers).mask.any() for _ in range(60)]
    assert 10 < sum(wet) < 40  # the others were to be drawn, and were drawn dry


def test_unequal_sizes_are_refused():
    clean = np.zeros((5, 5, 3), np.uint8)
    with pytest.raises(ValueError, match=r"degraded picture is 4x5, the clean picture 5x5"):
        Example(np.zeros((5, 4, 3), np.uint8), clean)
    with pytest.raises(ValueError, match=r"mask is 5x6"):
        Example(clean, clean, np.zeros((6, 5), bool))
