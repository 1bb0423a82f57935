"""The paper's tables beside made-up results and beside a tiny model's."""

import json
from dataclasses import replace

import numpy as np
import pytest

from jobs import ablate, evaluate
from pipelines.judging import paper
from pipelines.judging.evaluation import EvaluateConfig, SetResult, WorstGain
from pipelines.judging.paper import Judged
from pipelines.services import storage
from pipelines.services.models import ModelError, ResolvedModel
from pipelines.training.settings import TrainConfig
from spair_core import images, inference, metrics, weights
from spair_core.images import encode_png
from spair_core.metrics import LabErrors
from spair_core.network import Spair, ablation, light


@pytest.fixture
def model(tiny_config):
    """A tiny model file of a task."""

    def made(task, epochs="20 + 5", config=tiny_config):
        card = weights.ModelCard(config, task, 0.05, {"data": "photos", "epochs": epochs})
        return ResolvedModel(f"{task}-model", "file", weights.save(Spair(config), card))

    return made


def result(name, psnr=30.0, ssim=0.9, count=100, **changes):
    made = SetResult(
        name,
        count,
        psnr,
        ssim,
        psnr + 1,
        ssim / 2,
        20.0,
        WorstGain("a", 0),
        1,
        1,
        0.1,
        1,
        input_psnr_rgb=25.0,
    )
    return replace(made, **changes)


def tables(judged, **options):
    """Table name -> label -> line."""
    found = paper.compare(judged, **options)
    assert [c.table for c in found] == ["1", "2", "3", "4", "5", "S1", "S2"]
    return {c.table: {line.label: line for line in c.lines} for c in found}


def test_rain_is_held_against_the_paper_on_y(model):
    counts = {"Test100": 100, "RAIN100H": 100, "rain100l": 100, "Test2800": 2800, "Test1200": 1200}
    psnrs = (31.0, 30.0, 36.0, 33.0, 34.0)
    judged = Judged(
        model("rain"), [result(n, p, count=c) for (n, c), p in zip(counts.items(), psnrs, strict=True)]
    )
    found = tables([judged])
    line = found["1"]["Rain100H"]
    assert line.pictures == "100"
    assert line.paper == {"psnr": 30.95, "ssim": 0.892}
    assert line.difference == pytest.approx({"psnr": -0.95, "ssim": 0.008})
    # 10 dB more than the input: the RMSE falls to 10^(-1/2).
    assert line.saved["the input"]["psnr"] == pytest.approx(1 - 10**-0.5)
    mean = found["1"]["mean"]
    assert mean.ours == pytest.approx({"psnr": np.mean(psnrs), "ssim": 0.9})
    assert mean.pictures == "5 sets"
    assert mean.saved["MSPFN"]["psnr"] == pytest.approx(1 - 10 ** ((30.75 - np.mean(psnrs)) / 20))
    assert mean.paper_saved["MSPFN"]["psnr"] == pytest.approx(0.2202, abs=1e-4)
    assert found["2"]["SPA"].pictures == "not there"
    assert found["2"]["SPA"].paper_saved["RCDNet"]["psnr"] == pytest.approx(0.261, abs=1e-3)
    assert found["3"]["AGAN-a"].pictures == "not the model's task (raindrop)"
    assert found["S1"]["Test100"].ours == {}
    shown = "\n".join(paper.text(c) for c in paper.compare([judged]))
    assert "by rain-model (rain; trained on photos)" in shown
    assert "Test100: error against the input: RMSE -71.8%" in shown
    assert "the paper's error against RCDNet: RMSE -26.1%, DSSIM -22.9%" in shown


def test_what_was_judged_in_part_is_marked(model):
    rejected = (("a", "bad"), ("b", "bad"))
    judged = Judged(
        model("rain"),
        [
            result("Test100", count=10),
            result("Rain100H", count=98, rejected=rejected),
            result("Rain100L", count=0, rejected=rejected),
            result("Rain100H-original", count=120),
        ],
    )
    limited, free = tables([judged], limit=10), tables([judged])
    assert limited["1"]["Test100"].pictures == "first 10 of 100"
    assert free["1"]["Test100"].pictures == "10 of 100"
    assert free["1"]["Rain100H"].pictures == "98 of 100, 2 rejected"
    assert free["1"]["Rain100L"].pictures == "all 2 rejected"
    assert free["2"]["Rain100H-original"].pictures == "120 of 100"
    assert free["1"]["mean"].pictures == "needs every set"
    assert free["1"]["mean"].ours == {}


def test_every_task_has_its_measure(model):
    lab = LabErrors({"S": 9.0, "NS": 5.0, "all": 6.0}, {"S": 12.0, "NS": 6.0, "all": 7.0})
    before = LabErrors({"S": 36.0, "NS": 0.0, "all": 12.0}, {"S": 40.0, "NS": 7.0, "all": 15.0})
    found = tables(
        [
            Judged(model("shadow"), [result("ISTD", count=540, lab=lab, input_lab=before)]),
            Judged(model("blur"), [result("GoPro", 30.0, count=1111), result("RealBlur-J", count=980)]),
            Judged(model("rain+raindrop"), [result("AGAN-a", 33.0, count=58), result("Test100", 31.0)]),
        ]
    )
    shadow = found["4"]["ISTD"]
    assert shadow.difference == pytest.approx({"S": 0.95, "NS": -0.47, "all": 0.12})
    nothing_to_save = float("nan")  # the input was clean outside the shadow
    assert shadow.saved["the input"] == pytest.approx(
        {"S": 0.75, "NS": nothing_to_save, "all": 0.5}, nan_ok=True
    )
    assert shadow.paper_saved["the paper's input"]["S"] == pytest.approx(1 - 8.05 / 32.12)
    assert "root mean square error: S 12.00 (input 40.00)" in shadow.note
    assert found["5"]["GoPro, trained on GoPro"].ours == {"psnr": 31.0, "ssim": 0.45}  # on RGB
    assert found["5"]["RealBlur-J, trained on RealBlur-J"].difference == pytest.approx({"psnr": -0.82})
    assert found["S2"]["AGAN-a"].difference["psnr"] == pytest.approx(0.41)
    assert found["S1"]["Test100"].difference["psnr"] == pytest.approx(0.67)
    # A joint model's place is not in the tables of single tasks.
    assert found["1"]["Test100"].ours == found["3"]["AGAN-a"].ours == {}


def test_the_papers_ablations_and_their_own_table(model):
    comparison = paper.compare_ablations(
        {5: [result("GoPro", 31.0, count=1111)], 1: [result("gopro", 29.0, count=3), result("mine", 28.0)]},
        "blur",
        limit=3,
    )
    first, other, last = comparison.lines
    assert (first.label, first.pictures, first.paper) == ("Net1, gopro", "first 3 of 1,111", {"psnr": 30.84})
    assert first.difference == pytest.approx({"psnr": 30.0 - 30.84})  # on RGB
    assert (other.paper, other.ours["psnr"]) == ({}, 29.0)
    assert last.difference == pytest.approx({"psnr": 32.0 - 32.06})
    assert "Net5, GoPro" in paper.text(comparison)


def test_a_net_l_takes_the_place_of_another(model):
    mine, other = model("raindrop"), model("raindrop", epochs="50 + 0")
    assert paper.localizer_epochs(other) == 50
    assert paper.localizer_epochs(replace(other, data=model("rain", epochs="").data)) is None
    pair = paper.with_localizer(mine, other).build().state_dict()
    own, foreign = mine.build().state_dict(), other.build().state_dict()
    for name, value in pair.items():
        assert (value == (foreign if name.startswith("localizer") else own)[name]).all()
    with pytest.raises(ModelError, match="another configuration"):
        paper.with_localizer(mine, model("raindrop", config=light()))


@pytest.fixture
def tree(photos, tmp_path, model):
    """Tiny sets under the names of the paper's, and models of two tasks."""
    for name in ("Test100", "agan-A", "ISTD"):
        for i in range(2):
            clean = photos[i][:40, :64]
            for folder, pixels in (("input", clean // 2), ("target", clean)):
                storage.write_bytes(f"{tmp_path}/test/{name}/{folder}/{i}.png", encode_png(pixels))
    for task, epochs in (("rain", "1 + 1"), ("raindrop", "20 + 1")):
        storage.write_bytes(f"{tmp_path}/{task}", model(task, epochs).data)
    storage.write_bytes(f"{tmp_path}/net-l", model("raindrop", "50 + 0").data)
    return tmp_path


@pytest.mark.cluster
def test_all_tables_from_one_command(cluster, tree, capsys):
    config = EvaluateConfig(
        (f"{tree}/test",),
        paper=True,
        models=(f"{tree}/rain", f"{tree}/raindrop"),
        limit=1,
        json=f"{tree}/out.json",
    )
    evaluate.main(config)
    out = json.loads(storage.read_bytes(f"{tree}/out.json"), parse_constant=pytest.fail)
    # Each model has seen the sets of its task alone.
    assert [[s["name"] for s in m["sets"]] for m in out["models"]] == [["Test100"], ["agan-A"]]
    found = {t["table"]: {line["label"]: line for line in t["lines"]} for t in out["tables"]}
    rain = found["1"]["Test100"]
    assert rain["pictures"] == "first 1 of 100"
    assert rain["ours"]["psnr"] == pytest.approx(out["models"][0]["sets"][0]["psnr_y"])
    assert rain["difference"]["psnr"] == pytest.approx(rain["ours"]["psnr"] - 30.35)
    assert found["3"]["AGAN-a"]["ours"]["ssim"] == pytest.approx(out["models"][1]["sets"][0]["ssim_y"])
    assert found["4"]["ISTD"]["pictures"] == "not the model's task (shadow)"
    assert found["1"]["Rain100L"]["pictures"] == "not there"
    shown = capsys.readouterr().out
    assert all(f"Table {name}:" in shown for name in ("1", "2", "3", "4", "5", "S1", "S2"))


def psnr_y(model, folder):
    """The mean over a folder of two pairs, without a cluster."""
    network, _ = weights.load(storage.read_bytes(model))
    scores = []
    for i in range(2):
        degraded, clean = (
            images.decode(storage.read_bytes(f"{folder}/{side}/{i}.png")).pixels
            for side in ("input", "target")
        )
        scores.append(metrics.psnr_y(inference.restore(network, degraded[None]).pixels[0], clean))
    return np.mean(scores)


@pytest.mark.cluster
def test_net_ls_are_compared(cluster, tree, capsys):
    evaluate.main(
        EvaluateConfig(
            (f"{tree}/test/agan-A",),
            f"{tree}/raindrop",
            localizers=(f"{tree}/raindrop", f"{tree}/net-l"),
            json=f"{tree}/out.json",
        )
    )
    (table,) = json.loads(storage.read_bytes(f"{tree}/out.json"))["tables"]
    own, other = table["lines"]
    assert own["label"].endswith("raindrop, 20 epochs")
    assert (own["paper"]["bce"], other["paper"]["bce"]) == (0.0840, 0.0606)
    assert own["ours"]["psnr"] == pytest.approx(psnr_y(f"{tree}/raindrop", f"{tree}/test/agan-A"))
    assert own["ours"]["bce"] > 0
    assert own["ours"]["bce"] != other["ours"]["bce"]
    assert "Table S3" in capsys.readouterr().out


@pytest.mark.cluster
def test_ablations_are_trained_and_judged(cluster, tree, tiny_config, monkeypatch, capsys):
    """Training has tests of its own; here a net is what it starts as."""

    def train(config):
        assert config.network() == ablation(config.ablation, light())
        assert (config.name, config.register_as) in (("tiny-net1", "mine-net1"), ("tiny-net5", "mine-net5"))
        network = ablation(config.ablation, tiny_config)
        location = f"{tree}/{config.name}"
        card = weights.ModelCard(network, config.task, 0.05)
        storage.write_bytes(location, weights.save(Spair(network), card))
        return location

    monkeypatch.setattr(ablate, "train", train)
    recipe = TrainConfig(data=("x",), storage="y", name="tiny", task="raindrop", register_as="mine")
    test, out = (f"{tree}/test/agan-A",), f"{tree}/out.json"
    ablate.main(ablate.AblateConfig(test, nets=(1, 5), recipe=recipe, json=out))
    first, last = json.loads(storage.read_bytes(out))["lines"]
    assert (first["paper"], last["paper"]) == ({"psnr": 30.72}, {"psnr": 32.73})
    assert first["ours"]["psnr"] == pytest.approx(psnr_y(f"{tree}/tiny-net1", *test))
    assert last["ours"]["psnr"] == pytest.approx(psnr_y(f"{tree}/tiny-net5", *test))
    assert "Net1, agan-A" in capsys.readouterr().out


def test_only_the_papers_ablations(tmp_path):
    recipe = TrainConfig(data=("x",), storage="y", name="z")
    with pytest.raises(ValueError, match=r"not \[6\]"):
        ablate.AblateConfig(("x",), nets=(5, 6), recipe=recipe)
    with pytest.raises(ValueError, match="actors must be at least 1"):
        ablate.AblateConfig(("x",), recipe=recipe, actors=0)
    with pytest.raises(storage.StorageError, match="missing"):
        ablate.main(ablate.AblateConfig((f"{tmp_path}/missing",), recipe=recipe))
