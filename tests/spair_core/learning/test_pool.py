import numpy as np
import pytest
import torch

from spair_core.degradations.crops import Example
from spair_core.learning.pack import Clip, Pack
from spair_core.learning.pool import Draws, Pool, PoolConfig
from spair_core.masks import mask_from_pair

SMALL = PoolConfig(window=64, crop=32, batch=3, pool=12, begin=6, workers=1)


@pytest.fixture(scope="module")
def pack(photos):
    scene = photos[1][:120]
    clip = Clip([np.ascontiguousarray(scene[:, k : k + 200]) for k in range(40)], 30.0)
    rainy = np.clip(photos[0].astype(int) + 40 * (np.arange(photos[0].shape[1]) % 9 == 0)[:, None], 0, 255)
    pair = Example(rainy.astype(np.uint8), photos[0])
    return Pack((photos[3],), (("rain", pair),), (clip,))


def planes(window, config=SMALL):
    return {name: window[place].transpose(1, 2, 0).astype(int) for name, place in config.planes.items()}


def test_windows_are_degraded_beside_their_references(pack):
    rng, draws = np.random.default_rng(0), Draws(pack, SMALL)
    shown = [planes(draws.window(rng)) for _ in range(24)]
    assert all(one["references"].shape == (64, 64, 6) for one in shown)
    stills = [(one["references"] == np.tile(one["degraded"], 2)).all() for one in shown]
    dry = [not one["mask"].any() for one in shown]
    assert 3 < sum(stills) < 22
    assert 1 < sum(dry) < 16
    marked = [one for one in shown if one["mask"].mean() > 0.05]
    changed = [np.abs(one["degraded"] - one["clean"]).mean(axis=2, keepdims=True) for one in marked]
    inside = np.concatenate([change[one["mask"] > 0] for change, one in zip(changed, marked, strict=True)])
    outside = np.concatenate([change[one["mask"] == 0] for change, one in zip(changed, marked, strict=True)])
    assert inside.mean() > 3 * outside.mean()


def test_each_share_of_a_pack_is_drawn(pack):
    rng = np.random.default_rng(1)
    only = {"pairs": PoolConfig(window=64, pairs=1), "clips": PoolConfig(window=64, pairs=0, clips=1)}
    real = planes(Draws(pack, only["pairs"]).window(rng))
    assert (
        mask_from_pair(*(real[name].astype(np.uint8) for name in ("degraded", "clean")))
        == real["mask"][..., 0]
    ).all()
    assert Draws(pack, only["clips"])._example(rng).window is not None
    photo = Draws(pack, PoolConfig(window=64, pairs=0, clips=0, moved=0))._example(rng)
    assert photo.window is None
    assert (photo.clean == pack.photographs[0]).all()


@pytest.mark.parametrize("task", ["shadow", "blur"])
def test_stills_are_degraded_with_what_is_real_in_the_pack(photos, task):
    silhouette = np.zeros((60, 80), bool)
    silhouette[:, 40:] = True
    kernel = np.zeros((9, 9))
    kernel[4] = 1
    still = Pack((photos[3],), shadow_masks=(silhouette,), shakes=(kernel,))
    config = PoolConfig(task=task, window=64, dry=0.2)
    rng, draws = np.random.default_rng(0), Draws(still, config)
    shown = [planes(draws.window(rng), config) for _ in range(16)]
    assert set(shown[0]) == {"degraded", "clean", "mask"}
    changed = [(one["degraded"] != one["clean"]).any() for one in shown]
    assert 6 < sum(changed) < 16
    assert set(draws.material) == {"shadow", "blur"}


def test_pairs_of_other_tasks_are_left_alone(pack):
    draws = Draws(pack, PoolConfig(task="raindrop", window=64, pairs=1, clips=0))
    assert draws.pairs == []
    assert Draws(pack, PoolConfig(task="rain", window=64)).pairs == [pack.pairs[0][1]]


@pytest.mark.long
def test_a_pool_gives_crops_of_its_windows(pack):
    pool = Pool(pack, SMALL, torch.device("cpu"))
    try:
        batch = pool.batch()
        assert batch.degraded.shape == batch.clean.shape == (3, 3, 32, 32)
        assert batch.mask.shape == (3, 1, 32, 32)
        assert batch.references.shape == (3, 6, 32, 32)
        assert 0 <= batch.degraded.min() < batch.degraded.max() <= 1
        assert set(batch.mask.unique().tolist()) <= {0.0, 1.0}
        # A crop is a piece of a window, perhaps mirrored.
        whole = pool.windows[: min(pool.made, 12), SMALL.planes["clean"]].float() / 255
        pieces = torch.cat([whole, whole.flip(3)]).unfold(2, 32, 1).unfold(3, 32, 1)[:, 0]
        found = (pieces - batch.clean[0, 0]).abs().amax((3, 4)).min()
        assert pool.made > 12 or found == 0
    finally:
        pool.close()


@pytest.mark.long
def test_what_goes_wrong_where_windows_are_made_is_told():
    pool = Pool(Pack(), SMALL, torch.device("cpu"))
    try:
        with pytest.raises(ValueError, match="high <= 0"):
            pool.batch()
    finally:
        pool.close()
