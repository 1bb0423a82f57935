import json
import re

import numpy as np
import pytest

from pipelines.reports import report
from pipelines.reports.report import AnalyseConfig
from pipelines.services import storage, tracking
from pipelines.services.storage import StorageError
from spair_core.images import encode_png


@pytest.fixture(scope="module")
def clean(photos):
    return photos[0][100:148, 200:264]


@pytest.fixture(scope="module")
def streaked(clean):
    streaked = clean.copy()
    streaked[10:40, 20:23] = 255
    return streaked


@pytest.fixture
def model(tmp_path, tiny_weights):
    (tmp_path / "tiny.safetensors").write_bytes(tiny_weights)
    return str(tmp_path / "tiny.safetensors")


@pytest.mark.long
def test_without_its_clean_partner(mlflow_store, tmp_path, streaked, model):
    (tmp_path / "a b.png").write_bytes(encode_png(streaked))
    (tmp_path / "mask.png").write_bytes(encode_png(np.zeros(streaked.shape[:2], bool)))

    def looked_at(folder, **more):
        config = AnalyseConfig(str(tmp_path / folder), str(tmp_path / "a b.png"), model=model, **more)
        (outcome,) = report.report(config)
        return outcome, (tmp_path / folder / "a b.html").read_text()

    outcome, page = looked_at("alone")
    assert "Neither the clean picture nor the true mask was given" in page
    assert "Error on clean pixels" not in page
    assert not any(name.startswith("psnr") for name in outcome.numbers)
    assert "dB" not in report.summary([outcome])
    assert 'href="a%20b.html"' in (tmp_path / "alone" / "index.html").read_text()
    with_mask, page = looked_at("masked", mask=str(tmp_path / "mask.png"))
    assert "The clean picture was not given" in page
    assert with_mask.numbers["mask.recall"] == 1.0
    again, same = looked_at("again", mask=str(tmp_path / "mask.png"))
    assert (again.numbers, same) == (with_mask.numbers, page)


@pytest.mark.long
def test_nothing_found_is_said(mlflow_store, tmp_path, clean, tiny_config):
    import torch

    from spair_core import weights
    from spair_core.network import Spair

    blind = Spair(tiny_config)
    torch.nn.init.constant_(blind.localizer.head.bias, -50.0)
    card = weights.ModelCard(tiny_config, "blur", 0.05)
    (tmp_path / "blind").write_bytes(weights.save(blind, card))
    (tmp_path / "dry.png").write_bytes(encode_png(clean))
    dry = str(tmp_path / "dry.png")
    report.report(AnalyseConfig(str(tmp_path / "out"), dry, dry, model=str(tmp_path / "blind")))
    page = (tmp_path / "out" / "dry.html").read_text()
    assert "No pixel was found degraded" in page
    assert "No SFM had both" in page
    assert "PSNR on RGB" in page  # as deblurring is judged
    facts = json.loads((tmp_path / "out" / "dry.json").read_text())
    assert facts["analysis"]["pixel"] is None
    assert facts["numbers"]["psnr.input.everywhere"] == 100


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "either one --picture"),
        ({"picture": "a.png", "data": ("b",)}, "either one --picture"),
        ({"data": ("b",), "clean": "a.png"}, "belong to one --picture"),
        ({"picture": "a.png", "max_side": 0}, "at least 8 pixels"),
        ({"data": ("b",), "actors": 0}, "actors must be at least 1"),
        ({"data": ("b",), "limit": 0}, "limit must be"),
    ],
)
def test_flags_that_do_not_go_together(flags, words):
    with pytest.raises(ValueError, match=words):
        AnalyseConfig("out", **flags)


def test_bad_pictures_are_named(mlflow_store, tmp_path, clean, streaked, model):
    bad, partner = str(tmp_path / "bad.png"), str(tmp_path / "clean.png")
    (tmp_path / "clean.png").write_bytes(encode_png(clean[:20]))
    for picture, other, pixel, words in (
        (b"nonsense", None, None, "bad.png: not a picture"),
        (encode_png(streaked), partner, None, "is 64x48, the clean picture 64x20"),
        (encode_png(streaked), None, (0, 64), "outside the picture"),
    ):
        (tmp_path / "bad.png").write_bytes(picture)
        with pytest.raises(ValueError, match=words):
            report.report(AnalyseConfig(str(tmp_path / "out"), bad, other, model=model, pixel=pixel))
    store = tracking.client()
    (run,) = store.search_runs([store.get_experiment_by_name("spair-analysis").experiment_id])
    assert run.info.status == "FAILED"  # one run, gone on with each time
    with pytest.raises(StorageError, match=r"nowhere.png: not found"):
        report.report(AnalyseConfig(str(tmp_path / "out"), str(tmp_path / "nowhere.png"), model=model))


@pytest.mark.cluster
def test_a_folder_of_pairs(cluster, mlflow_store, s3, clean, streaked, tiny_weights):
    storage.write_bytes(f"{s3}/model", tiny_weights)
    for name in ("one", "two", "three"):
        storage.write_bytes(f"{s3}/set/input/{name}.png", encode_png(streaked))
        storage.write_bytes(f"{s3}/set/target/{name}.png", encode_png(clean))
    storage.write_bytes(f"{s3}/set/input/bad.png", b"nonsense")
    storage.write_bytes(f"{s3}/set/target/bad.png", b"nonsense")
    outcomes = report.report(AnalyseConfig(f"{s3}/out", data=(f"{s3}/set",), model=f"{s3}/model", limit=3))
    assert [(o.name, bool(o.error)) for o in outcomes] == [
        ("set/bad", True),
        ("set/one", False),
        ("set/three", False),
    ]
    index = storage.read_bytes(f"{s3}/out/index.html").decode()
    assert re.findall(r'href="([^"]*)"', index) == ["set/one.html", "set/three.html"]
    assert "rejected: set/bad" in index
    assert "rejected: set/bad" in report.summary(outcomes)
    store = tracking.client()
    (run,) = store.search_runs([store.get_experiment_by_name("spair-analysis").experiment_id])
    files = {file.path for file in store.list_artifacts(run.info.run_id, "set")}
    assert {"set/one.html", "set/three.json"} < files
    history = store.get_metric_history(run.info.run_id, "psnr.restored.everywhere")
    assert {metric.step for metric in history} == {0, 1}
