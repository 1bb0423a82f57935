import numpy as np
import pytest
import torch

from spair_core import cost
from spair_core.network import full, light


@pytest.mark.long
@pytest.mark.parametrize(("preset", "sparse", "marked"), [(light, 55_000, 160_000), (full, 200_000, 500_000)])
def test_the_budgets_hold(preset, sparse, marked):
    assert cost.count(preset(), 0.05).macs_per_pixel <= sparse
    assert cost.count(preset(), 1.0).macs_per_pixel <= marked


def test_clean_pictures_cost_no_sparse_work(tiny_config):
    counted = cost.count(tiny_config, 0.0)
    assert counted.sparse == 0
    assert counted.localizer > 0
    assert counted.dense > 0


def test_the_sparse_part_by_hand(tiny_config):
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)

    def block(c, g):
        return sum(9 * g * (c + i * g) for i in range(6)) + (c + 6 * g) * c

    # Everything marked: SC in every cell; SNL has no pairs, only its linear layers.
    full_resolution, coarser = block(4, 4), block(8, 4) + 8 * 8 + 2 * 4 * 8
    expected = full_resolution + coarser * (1 / 4 + 1 / 16 + 1 / 64)
    assert cost.count_mask(tiny_config, mask).sparse == pytest.approx(expected)


@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
def test_streak_masks_have_the_density_asked_for(density):
    mask = cost.streak_mask((128, 128), density, np.random.default_rng(0))
    assert mask.mean() == pytest.approx(density, abs=0.01)


def test_density_is_a_share(tiny_config):
    with pytest.raises(ValueError, match="between 0 and 1"):
        cost.count(tiny_config, 5)
