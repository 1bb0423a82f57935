import itertools
import json
from types import SimpleNamespace

import pytest
import torch

from spair_core import weights
from spair_core.learning import LearningConfig, single
from spair_core.learning.pack import write_pack
from spair_core.learning.pool import PoolConfig
from spair_core.learning.single import SingleConfig, started_from
from spair_core.network import Spair
from spair_core.weights import ModelCard


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


def test_each_line_of_the_curve_is_the_mean_of_its_own_steps(tiny_config, tmp_path, monkeypatch):
    """Also the first of a phase, which may begin between two lines."""
    learner = SimpleNamespace(best=Spair(tiny_config), config=LearningConfig(), step=lambda *_: {"loss": 1.0})
    pool = SimpleNamespace(device=torch.device("cpu"), batch=list, made=0, config=PoolConfig())
    looks = itertools.count()
    monkeypatch.setattr(single, "Learner", lambda *_: learner)
    monkeypatch.setattr(single._Run, "minutes", lambda run: 0.01 * next(looks))
    monkeypatch.setattr(single, "CURVE_EVERY", 5)
    run = single._Run(tmp_path, ModelCard(tiny_config, "rain", 0.05, {}), 0.0)
    single.train(learner.best, pool, SingleConfig(minutes=0.3, localize=0.3), run)
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert {line["phase"] for line in lines} == {"localize", "joint"}
    assert [line["loss"] for line in lines] == [1.0] * len(lines)


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
