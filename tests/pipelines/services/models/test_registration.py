"""Versions in a real registry: what they bring along, and where they come from."""

import json
from pathlib import Path

import mlflow
import pytest

from pipelines.services import models, tracking
from pipelines.services.tracking import TrackingError
from spair_core import weights
from tests.pipelines.services.test_tracking import Config


def test_versions_of_one_run_keep_their_own_files(mlflow_store, tiny_weights):
    model, card = weights.load(tiny_weights)
    other = weights.save(model, weights.ModelCard(card.network, "blur", 0.2))
    with tracking.run("models", "two") as run:
        first = models.register("rain", tiny_weights, card, run=run, tags={"metric.psnr_y": "30"})
        second = models.register("rain", other, weights.read_card(other), run=run, tags={})
    store = tracking.client()
    assert (first, second) == (1, 2)
    for number, data, task in ((1, tiny_weights, "rain"), (2, other, "blur")):
        version = store.get_model_version("rain", str(number))
        assert version.run_id == run.run_id
        assert version.tags["digest"] == weights.digest(data)
        assert version.tags["task"] == task
        files = store.get_model_version_download_uri("rain", str(number)).removeprefix("file://")
        assert (Path(files) / "artifacts" / models.WEIGHTS_FILE).read_bytes() == data
        assert not list(Path(files).rglob("shipped"))
    assert store.get_model_version("rain", "1").tags["metric.psnr_y"] == "30"


def test_a_version_carries_where_it_comes_from(mlflow_store, tiny_weights):
    card = weights.read_card(tiny_weights)
    origin = models.Origin(Config(), {"s3://shards/rain": "ab" * 32}, {"val_psnr_y": 28.5}, step=7)
    with tracking.run("models", "one") as run:
        run.log_metrics({"val_psnr_y": 20.0}, step=1)
        models.register("rain", tiny_weights, card, run=run, origin=origin)
    store = tracking.client()
    version = store.get_model_version("rain", "1")
    assert version.tags["data"] == "s3://shards/rain " + "ab" * 32
    assert version.tags["metric.val_psnr_y"] == "28.5000"
    assert len(version.tags["revision"]) >= 40
    for line in ("- **takes away**: rain", "- **from**: tests", "- **val_psnr_y at its end**: 28.5"):
        assert line in version.description

    logged = store.get_logged_model(version.source.removeprefix("models:/"))
    assert str(logged.status) == "READY"
    assert [(m.key, m.value, m.step) for m in logged.metrics] == [("val_psnr_y", 28.5, 7)]
    assert logged.params["inner.rate"] == "0.001"
    seen = store.get_run(run.run_id)
    assert [output.model_id for output in seen.outputs.model_outputs] == [logged.model_id]
    assert seen.inputs.dataset_inputs[0].dataset.name == "s3://shards/rain"
    assert [m.step for m in store.get_metric_history(run.run_id, "val_psnr_y")] == [1, 7]

    metadata = mlflow.pyfunc.load_model("models:/rain/1").metadata.metadata
    assert metadata["card"] == json.loads(card.to_json())
    assert metadata["origin"]["configuration"]["inner"] == {"rate": 0.001, "layers": [1, 2]}
    assert len(metadata["origin"]["configuration"]["name"]) == 9000
    assert metadata["origin"]["metrics"] == {"val_psnr_y": 28.5}


def test_a_registration_that_mlflow_refuses_says_why(mlflow_store, tiny_weights):
    with pytest.raises(TrackingError, match=r"(?i)model name"), tracking.run("models", "x") as run:
        models.register("a/b", tiny_weights, weights.read_card(tiny_weights), run=run, tags={})
