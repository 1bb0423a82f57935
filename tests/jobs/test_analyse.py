"""The job as its users run it: one picture, a page, its numbers, and an MLflow run."""

import base64
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from jobs import analyse
from pipelines.reports.report import AnalyseConfig
from pipelines.services import storage, tracking
from spair_core import images, inference, metrics, weights
from spair_core.degradations.rain import LIGHT, RainConfig, add_rain


@pytest.fixture(scope="module")
def pair(photos):
    clean = photos[1][60:162, 100:238]
    rain = RainConfig(families=(LIGHT,), weights=(1,), dry=0, haze=0)
    return add_rain(clean, np.random.default_rng(3), rain)[0], clean


@pytest.mark.long
def test_a_picture_becomes_a_page_and_a_run(mlflow_store, s3, pair, capsys):
    rainy, clean = pair
    storage.write_bytes(f"{s3}/rainy.png", images.encode_png(rainy))
    storage.write_bytes(f"{s3}/clean.png", images.encode_png(clean))
    analyse.main(AnalyseConfig(f"{s3}/out", f"{s3}/rainy.png", f"{s3}/clean.png"))
    after = inference.restore(weights.load(weights.shipped("rain-light"))[0], rainy[None])
    psnr = metrics.psnr_y(after.pixels[0], clean)
    assert f"{s3}/out/rainy.html: " in (shown := capsys.readouterr().out)
    assert f"-> {psnr:.2f} dB" in shown

    page = storage.read_bytes(f"{s3}/out/rainy.html").decode()
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 11
    for source in sources:  # nothing is fetched from elsewhere, and every picture can be shown
        kind, _, data = source.partition(";base64,")
        decoded = base64.b64decode(data, validate=True)
        if kind == "data:image/svg+xml":
            assert ElementTree.fromstring(decoded).tag.endswith("svg")
        else:
            Image.open(io.BytesIO(decoded)).verify()
    for words in ("precision", "clean pixels", "threshold", "SFM", "SNL", "multiply-accumulates"):
        assert words in page
    assert "left out" not in page

    facts = json.loads(storage.read_bytes(f"{s3}/out/rainy.json"))
    assert facts["numbers"]["psnr.restored.everywhere"] == pytest.approx(psnr)
    assert facts["numbers"]["density"] == pytest.approx(after.mask.mean())
    assert len(facts["analysis"]["sweep"]) == 19
    assert len(facts["analysis"]["modulations"][0]["clean"]["mean"]) == 48
    maps = np.load(io.BytesIO(storage.read_bytes(f"{s3}/out/rainy.npz")))
    np.testing.assert_array_equal(maps["restored"], after.pixels[0])
    assert maps["cost"].mean() == pytest.approx(facts["numbers"]["macs_per_pixel"])
    assert maps["attention_2_step1"].any()

    store = tracking.client()
    (run,) = store.search_runs([store.get_experiment_by_name("spair-analysis").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics == pytest.approx(facts["numbers"])
    assert run.data.tags["model"] == "spair:rain-light"
    files = {file.path for file in store.list_artifacts(run.info.run_id)}
    assert files == {"index.html", "rainy.html", "rainy.json", "rainy.npz"}
