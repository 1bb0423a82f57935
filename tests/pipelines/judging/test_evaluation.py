"""Whole pictures of named sets, judged."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jobs import evaluate
from pipelines.judging import evaluation
from pipelines.judging.evaluation import EvaluateConfig, SetResult
from pipelines.judging.promotion import PromoteConfig
from pipelines.services import storage
from pipelines.services.models import ResolvedModel
from spair_core import images, inference, metrics, weights
from spair_core.images import encode_png
from spair_core.metrics import LabErrors


def test_json_knows_no_nan():
    nan = float("nan")
    result = SetResult("a", 0, nan, nan, nan, nan, nan, None, nan, nan, nan, nan, (("x", "bad"),))
    result = replace(result, lab=LabErrors({"S": nan}, {}))
    read = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert read["psnr_y"] is None
    assert read["lab"]["mae"] == {"S": None}
    assert read["rejected"] == [["x", "bad"]]
    assert evaluation.plain({"a": (1.5, math.inf)}) == {"a": [1.5, None]}


def test_progress_is_told_now_and_then(monkeypatch, capsys):
    assert list(evaluation._with_progress([{}, {}], 1200)) == [{}, {}]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(evaluation, "PROGRESS_SECONDS", 0)
    assert list(evaluation._with_progress([{}, {}], 1200)) == [{}, {}]
    assert capsys.readouterr().err == "judged 1 of 1,200 pictures\njudged 2 of 1,200 pictures\n"


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="add --paper"):
        EvaluateConfig(("x",), models=("a", "b"))
    with pytest.raises(ValueError, match="leave --paper out"):
        EvaluateConfig(("x",), paper=True, localizers=("a",))
    with pytest.raises(ValueError, match="limit"):
        EvaluateConfig(("x",), limit=0)
    with pytest.raises(ValueError, match="actors must be at least 1"):
        EvaluateConfig(("x",), actors=0)
    with pytest.raises(ValueError, match="tile must be at least 128 pixels, not 100"):
        EvaluateConfig(("x",), tile=100)


def test_bce_of_the_mask(tiny_weights, photos):
    model, _ = weights.load(tiny_weights)
    picture = photos[0][:40, :56]
    mask = np.zeros((40, 56), bool)
    mask[:10] = True
    with torch.inference_mode():
        logits = model.locate(torch.tensor(picture).permute(2, 0, 1)[None] / 255)
        wanted = F.binary_cross_entropy(logits[0, 0].sigmoid(), torch.tensor(mask).float())
        blank = F.binary_cross_entropy(logits[0, 0].sigmoid(), torch.zeros(40, 56))
    assert evaluation.mask_bce(model, picture, mask) == pytest.approx(float(wanted), rel=1e-4)
    assert evaluation.mask_bce(model, picture, None) == pytest.approx(float(blank), rel=1e-4)
    # Beyond a tile the logits are those of the tiles: close to those of the whole.
    wide = np.tile(picture, (1, 4, 1))
    whole, tiled = (evaluation.mask_bce(model, wide, np.tile(mask, (1, 4)), t) for t in (1024, 128))
    assert tiled == pytest.approx(whole, rel=0.02)


@pytest.fixture
def shadows(photos, tmp_path):
    """Two pictures with a shadow over their left part, with its mask; and one that is damaged."""
    for i, share in enumerate((3, 2)):
        clean = photos[i][: 40 + 8 * i, :64]
        mask = np.zeros(clean.shape[:2], bool)
        mask[:, : 64 // share] = True
        dark = np.where(mask[..., None], clean // 2, clean)
        for folder, data in (("input", dark), ("target", clean), ("mask", mask)):
            storage.write_bytes(f"{tmp_path}/ISTD/{folder}/{i}.png", encode_png(data))
    for folder in ("input", "target"):
        storage.write_bytes(f"{tmp_path}/ISTD/{folder}/bad.png", b"nonsense")
        storage.write_bytes(f"{tmp_path}/broken/{folder}/bad.png", b"nonsense")
    return tmp_path


@pytest.mark.cluster
def test_a_model_against_shadows_is_judged_in_lab(cluster, shadows, tiny_weights, capsys):
    model, card = weights.load(tiny_weights)
    data = weights.save(model, weights.ModelCard(card.network, "shadow", 0.05))
    storage.write_bytes(f"{shadows}/model", data)
    sets = (f"{shadows}/ISTD", f"{shadows}/broken")
    evaluate.main(EvaluateConfig(sets, f"{shadows}/model", json=f"{shadows}/out.json"))
    judged, broken = json.loads(storage.read_bytes(f"{shadows}/out.json"))

    sums = np.zeros((3, 3))
    for i in range(2):
        dark, clean = (
            images.decode(storage.read_bytes(f"{shadows}/ISTD/{side}/{i}.png")).pixels
            for side in ("input", "target")
        )
        mask = images.decode_mask(storage.read_bytes(f"{shadows}/ISTD/mask/{i}.png"))
        sums += metrics.lab_sums(inference.restore(model, dark[None]).pixels[0], clean, mask)
    by_hand = metrics.lab_errors(sums)
    assert judged["lab"]["mae"] == pytest.approx(by_hand.mae)
    assert judged["lab"]["rmse"] == pytest.approx(by_hand.rmse)
    assert judged["input_lab"]["mae"]["S"] > 10 > judged["input_lab"]["mae"]["NS"]
    assert judged["rejected"] == [["bad", judged["rejected"][0][1]]]
    assert judged["mask_bce"] is None
    assert (broken["count"], broken["psnr_y"], broken["lab"]) == (0, None, None)
    assert "mean absolute error (the field's RMSE): S" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"no picture of .*broken could be judged:\nbad: "):
        evaluation.evaluate(EvaluateConfig((f"{shadows}/broken",), f"{shadows}/model"))


def test_pairs_of_sets_that_are_left_out_are_not_read(shadows, tiny_weights, monkeypatch):
    (shadows / "ISTD" / "target" / "alone.png").write_bytes(b"")
    seen = []
    monkeypatch.setattr(evaluation.cluster, "connect", lambda: None)
    monkeypatch.setattr(evaluation, "_judged_rows", lambda config, model, items, _: seen.extend(items) or [])
    config = EvaluateConfig((f"{shadows}/ISTD", f"{shadows}/broken"))
    evaluation.judge(config, ResolvedModel("tiny", "tiny", tiny_weights), leave_out={"istd"})
    assert [item["files"]["set"] for item in seen] == ["broken"]


def test_what_cannot_be_judged_is_a_pictures_reason(monkeypatch):
    def fails(*_):
        raise MemoryError("out of memory")

    monkeypatch.setattr(evaluation, "_scores", fails)
    row = evaluation._judged({"set": "a", "key": "1", "error": None}, 0.05, False)
    assert "out of memory" in row["error"]
    assert evaluation._summarise("a", [row]).rejected == (("1", row["error"]),)


@pytest.mark.cluster
def test_sets_can_be_left_out(cluster, shadows, tiny_weights):
    config = EvaluateConfig((f"{shadows}/ISTD", f"{shadows}/broken"))
    model = ResolvedModel("tiny", "tiny", tiny_weights)
    assert [r.name for r in evaluation.judge(config, model, leave_out={"istd"})] == ["broken"]
    assert evaluation.judge(config, model, leave_out={"istd", "broken"}) == []
    judged, _ = evaluation.judge(config, model)
    assert judged.lab is None  # the model is against rain
    assert (judged.name, judged.count) == ("ISTD", 2)


@pytest.mark.parametrize("wrong", [{"actors": 0}, {"num_gpus": -1.0}, {"limit": 0}])
def test_numbers_that_cannot_be_are_told_at_once(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} .*at least"):
        EvaluateConfig(("x",), **wrong)
    with pytest.raises(ValueError, match=f"{name} .*at least"):
        PromoteConfig("models:/a/1", data=("x",), **wrong)
