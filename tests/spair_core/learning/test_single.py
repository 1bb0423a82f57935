import itertools
import json

import numpy as np
import pytest
import torch

from spair_core import weights
from spair_core.degradations.crops import Example
from spair_core.learning import single
from spair_core.learning.pack import Clip, Pack, write_pack
from spair_core.learning.single import Draws, Pool, SingleConfig, started_from
from spair_core.masks import mask_from_pair

SMALL = SingleConfig(window=64, crop=32, batch=3, pool=12, begin=6, workers=1)


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
    only = {"pairs": SingleConfig(window=64, pairs=1), "clips": SingleConfig(window=64, pairs=0, clips=1)}
    real = planes(Draws(pack, only["pairs"]).window(rng))
    assert (
        mask_from_pair(*(real[name].astype(np.uint8) for name in ("degraded", "clean")))
        == real["mask"][..., 0]
    ).all()
    assert Draws(pack, only["clips"])._example(rng).window is not None
    photo = Draws(pack, SingleConfig(window=64, pairs=0, clips=0, moved=0))._example(rng)
    assert photo.window is None
    assert (photo.clean == pack.photographs[0]).all()


@pytest.mark.parametrize("task", ["shadow", "blur"])
def test_stills_are_degraded_with_what_is_real_in_the_pack(photos, task):
    silhouette = np.zeros((60, 80), bool)
    silhouette[:, 40:] = True
    kernel = np.zeros((9, 9))
    kernel[4] = 1
    still = Pack((photos[3],), shadow_masks=(silhouette,), shakes=(kernel,))
    config = SingleConfig(task=task, window=64, dry=0.2)
    rng, draws = np.random.default_rng(0), Draws(still, config)
    shown = [planes(draws.window(rng), config) for _ in range(16)]
    assert set(shown[0]) == {"degraded", "clean", "mask"}
    changed = [(one["degraded"] != one["clean"]).any() for one in shown]
    assert 6 < sum(changed) < 16
    assert set(draws.material) == {"shadow", "blur"}


def test_pairs_of_other_tasks_are_left_alone(pack):
    draws = Draws(pack, SingleConfig(task="raindrop", window=64, pairs=1, clips=0))
    assert draws.pairs == []
    assert Draws(pack, SingleConfig(task="rain", window=64)).pairs == [pack.pairs[0][1]]


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


def test_what_goes_wrong_where_windows_are_made_is_told():
    pool = Pool(Pack(), SMALL, torch.device("cpu"))
    try:
        with pytest.raises(ValueError, match="high <= 0"):
            pool.batch()
    finally:
        pool.close()


@pytest.mark.long
def test_a_run_leaves_weights_with_their_card_and_a_curve(photos, tmp_path, monkeypatch):
    from PIL import Image

    Image.fromarray(photos[3]).save(tmp_path / "a.png")
    write_pack(tmp_path / "p.zip", [tmp_path / "a.png"])
    monkeypatch.setattr(single, "CURVE_EVERY", 2)
    looks = itertools.count()  # a clock that goes on whenever it is looked at, however busy the machine is
    monkeypatch.setattr(single._Run, "minutes", lambda run: 0.005 * next(looks))
    out = tmp_path / "run"
    single.main(
        f"{tmp_path / 'p.zip'} --out {out} --start-from rain-light --device cpu --minutes 0.1 --localize 0.5"
        " --window 32 --crop 16 --batch 1 --begin 2 --pool 8 --workers 1".split()
    )
    model, card = weights.load((out / "weights.safetensors").read_bytes())
    assert model.config.references
    assert card.task == "rain+raindrop"
    assert card.provenance["started from"] == "rain-light"
    assert int(card.provenance["steps"]) > 3
    lines = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in (lines[0], lines[-1])] == ["localize", "joint"]
    assert all(line["loss"] > 0 and line["crops_a_second"] > 0 for line in lines)
    before = started_from("rain-light", "light", references=True).state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_cannot_be_trained_is_said(tmp_path, capsys):
    write_pack(tmp_path / "empty.zip")
    for flags, words in (
        (["--crop", "30"], "multiple of 8"),
        (["--crop", "512"], "at most --window"),
        (["--start-from", "absent.safetensors"], "absent.safetensors"),
        (["--start-from", "rain-light", "--preset", "full"], "cannot be continued as full"),
        ([], "put photographs or clips into it"),
        (["--task", "shadow"], "put photographs into it"),
    ):
        with pytest.raises(SystemExit) as ended:
            single.main([str(tmp_path / "empty.zip"), "--out", str(tmp_path), "--device", "cpu", *flags])
        assert words in str(ended.value)
