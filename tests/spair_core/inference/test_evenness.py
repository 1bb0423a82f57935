"""Restored places in even surroundings become as even as these; nothing else changes."""

import numpy as np
import pytest
import torch

from spair_core.inference.evenness import RIM, STAIN, evened


def picture(levels):
    """float32 [1, 3, H, W] of levels [H, W] of 255, the same in all channels."""
    return torch.from_numpy(np.repeat(np.asarray(levels, np.float32)[None, None] / 255, 3, 1))


def box(shape, rows, columns):
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    mask[..., slice(*rows), slice(*columns)] = True
    return mask


def in_levels(restored):
    return restored[0, 0].numpy() * 255


@pytest.mark.parametrize("shape", [(61, 83), (64, 64), (40, 333)])
def test_a_stain_before_an_even_sky_is_gone(shape):
    sky = np.full(shape, 150.0)
    sky[20:32, 30:44] += 14
    mask = box(shape, (20, 32), (30, 44))
    left = np.abs(in_levels(evened(picture(sky), mask)) - 150).max()
    assert left < 14 * (14 / 255 / STAIN) ** 2 * 2 + 0.1


def test_a_slope_goes_on_where_something_was():
    slope = np.add.outer(np.zeros(64), np.linspace(100, 112, 64))
    stained = slope.copy()
    stained[26:36, 26:36] -= 10
    result = in_levels(evened(picture(stained), box((64, 64), (26, 36), (26, 36))))
    assert np.abs(result - slope).max() < 4
    assert np.abs(result - slope)[26:36, 26:36].mean() < 2


def test_a_mark_on_the_road_stays():
    road = np.full((64, 64), 90.0)
    road[28:32, 20:44] += 60
    mask = box((64, 64), (22, 38), (16, 48))
    assert torch.equal(evened(picture(road), mask)[..., 28:32, 20:44], picture(road)[..., 28:32, 20:44])


def test_uneven_surroundings_change_nothing_that_is_seen():
    rng = np.random.default_rng(0)
    leaves = rng.uniform(40, 200, (64, 64))
    result = in_levels(evened(picture(leaves), box((64, 64), (20, 40), (20, 40))))
    assert np.abs(result - leaves).max() < 0.1


def test_what_lies_beside_the_edge_of_two_even_ones_stays():
    halves = np.where(np.arange(64) < 32, 60.0, 200.0) * np.ones((64, 1))
    result = in_levels(evened(picture(halves), box((64, 64), (24, 40), (24, 40))))
    assert np.abs(result - halves).max() < 0.1


def test_only_what_is_marked_changes_and_its_rim():
    levels = 120 + np.random.default_rng(1).normal(0, 2, (64, 64))
    before, mask = picture(levels), box((64, 64), (20, 30), (20, 30))
    changed = (evened(before, mask) != before).any(1)[0].numpy()
    allowed = np.zeros((64, 64), bool)
    allowed[20 - RIM : 30 + RIM, 20 - RIM : 30 + RIM] = True
    assert changed.any()
    assert not (changed & ~allowed).any()


@pytest.mark.parametrize("marked", [False, True])
def test_where_nothing_or_all_is_marked_nothing_changes(marked):
    before = picture(np.random.default_rng(2).uniform(100, 104, (33, 47)))
    mask = torch.full((1, 1, 33, 47), marked)
    assert torch.allclose(evened(before, mask), before, atol=1e-6)


def test_a_picture_does_not_depend_on_the_others_of_its_batch():
    rng = np.random.default_rng(3)
    pictures = torch.from_numpy(rng.uniform(0.4, 0.44, (3, 3, 50, 70)).astype(np.float32))
    masks = torch.from_numpy(rng.random((3, 1, 50, 70)) < 0.1)
    together = evened(pictures, masks)
    alone = torch.cat([evened(pictures[k : k + 1], masks[k : k + 1]) for k in range(3)])
    assert torch.equal(together, alone)


def test_float32_is_as_good_as_float64():
    rng = np.random.default_rng(4)
    pictures = torch.from_numpy(0.9 + rng.normal(0, 0.01, (1, 3, 90, 71)))
    mask = torch.from_numpy(rng.random((1, 1, 90, 71)) < 0.05)
    single = evened(pictures.float(), mask)
    assert (single - evened(pictures, mask)).abs().max() < 1e-4
