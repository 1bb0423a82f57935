"""A registered version, loaded by MLflow where SPAIR is not installed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.services import models, tracking
from spair_core import images, inference, weights

ELSEWHERE = """
import json, sys
# As on a machine where SPAIR was never installed.
sys.path = [place for place in sys.path if place not in ("", {project!r})]
sys.meta_path = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
try:
    import spair_core
    sys.exit("spair_core is still here")
except ImportError:
    pass
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model("models:/rain@champion")
data = open("rainy.png", "rb").read()
table = model.predict(pandas.DataFrame({{"picture": [data, data]}}))
listed = model.predict([data])
open("restored.png", "wb").write(table["restored"][1])
assert listed["restored"][0] == table["restored"][0]
print(json.dumps(list(table["degraded_share"])))
try:
    model.predict([b"nonsense"])
except Exception as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture
def champion(mlflow_store, tiny_weights):
    with tracking.run("models", "one") as run:
        models.register("rain", tiny_weights, weights.read_card(tiny_weights), run=run, tags={})
    tracking.client().set_registered_model_alias("rain", "champion", "1")


@pytest.mark.long
def test_it_loads_and_restores_without_the_project(champion, tmp_path, photos, tiny_weights):
    picture = photos[0][:37, :53]
    (tmp_path / "rainy.png").write_bytes(images.encode_png(picture))
    project = str(Path(tracking.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ELSEWHERE.format(project=project)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    shares, refusal = (json.loads(line) for line in done.stdout.splitlines())
    expected = inference.restore(weights.load(tiny_weights)[0], picture[None])
    restored = images.decode((tmp_path / "restored.png").read_bytes()).pixels
    np.testing.assert_array_equal(restored, expected.pixels[0])
    assert shares == pytest.approx([expected.mask.mean()] * 2)
    assert "picture 0" in refusal
