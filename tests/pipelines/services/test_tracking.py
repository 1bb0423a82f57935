"""Runs in a real store: resumed, shared between processes, and clear when the store is wrong."""

import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pipelines.services import tracking
from pipelines.services.tracking import TrackingError
from spair_core import images


@dataclass(frozen=True)
class Inner:
    rate: float = 1e-3
    layers: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Config:
    name: str = "x" * 9000
    inner: Inner = field(default_factory=Inner)
    limit: int | None = None


def runs_of(experiment):
    store = tracking.client()
    return store.search_runs([store.get_experiment_by_name(experiment).experiment_id])


def test_a_run_keeps_what_is_logged(mlflow_store):
    picture = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    with tracking.run("training", "one") as run:
        run.log_params(Config())
        run.log_metrics({"loss": 2.0, "psnr": float("inf")}, step=1)
        run.log_metrics({"loss": 1.0}, step=2)
        run.log_panel("night/a picture", picture)
        run.log_bytes("manifest.parquet", b"bytes")
        run.set_tags({"data": "y" * 20000})
    store = tracking.client()
    logged = store.get_run(run.run_id)
    assert logged.data.params["inner.rate"] == "0.001"
    assert logged.data.params["inner.layers"] == "(1, 2)"
    assert logged.data.params["limit"] == "None"
    assert set(logged.data.params["name"]) == {"x"}
    assert set(logged.data.tags["data"]) == {"y"}
    assert [(m.step, m.value) for m in store.get_metric_history(run.run_id, "loss")] == [(1, 2.0), (2, 1.0)]
    panel = Path(store.download_artifacts(run.run_id, "panels/night/a picture.png"))
    assert (images.decode(panel.read_bytes()).pixels == picture).all()
    assert Path(store.download_artifacts(run.run_id, "manifest.parquet")).read_bytes() == b"bytes"


@pytest.mark.parametrize("name", ["it's", 'say "so"', "both ' and \"", "s3://bucket/ä b"])
def test_any_name_can_be_resumed(mlflow_store, name):
    def fails():
        with tracking.run("nights", name):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    with tracking.run("nights", name) as second:
        pass
    assert [(run.info.run_id, run.info.status) for run in runs_of("nights")] == [(second.run_id, "FINISHED")]


def test_the_latest_run_of_a_name_is_found(mlflow_store):
    assert tracking.latest_run("nights", "s3://it's") is None
    runs = []
    for name in ("s3://it's", "s3://it's", "s3://other"):
        with tracking.run("nights", name) as run:
            runs.append(run)
    assert tracking.latest_run("nights", "s3://it's") == runs[1]
    assert tracking.latest_run("nights", "s3://nobody") is None


def test_runs_of_other_names_are_left_alone(mlflow_store):
    def fails():
        with tracking.run("nights", "a"):
            raise ValueError("a")

    with pytest.raises(ValueError, match="a"):
        fails()
    with tracking.run("nights", "b"), tracking.run("days", "a"):
        pass
    assert len(runs_of("nights")) == 2
    assert len(runs_of("days")) == 1


@pytest.mark.long
def test_a_worker_elsewhere_attaches_to_the_run(mlflow_store, tmp_path, monkeypatch):
    """A process with another working directory and without the variable logs into the same run."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    (tmp_path / "elsewhere").mkdir()
    worker = (
        "import pickle, sys; run = pickle.load(sys.stdin.buffer);"
        "run.log_metrics({'loss': 0.5}, step=3); run.log_bytes('panels/a.png', b'picture')"
    )
    with tracking.run("training", "one") as run:
        subprocess.run(
            [sys.executable, "-c", worker],
            input=pickle.dumps(run),
            cwd=tmp_path / "elsewhere",
            env={"PATH": "", "HOME": str(tmp_path)},
            check=True,
            timeout=240,
        )
    logged = tracking.client().get_run(run.run_id)
    assert logged.data.metrics["loss"] == 0.5
    assert logged.info.artifact_uri.startswith((tmp_path / "mlruns").as_uri())
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_default_store_is_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert tracking.store_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///below/a.db?timeout=5")
    assert tracking.store_uri() == f"sqlite:///{tmp_path}/below/a.db?timeout=5"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracking.store_uri() == "http://host:5000"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9", "no server answers"),
        ("ftp://host/x", "unsupported URI"),
        ("sqlite:////proc/nope/mlflow.db", "No such file"),
        ("sqlite:///{folder}", "unable to open database file"),
        ("sqlite:///{folder}/notes.txt", "not a database"),
        ("{folder}/mlruns", "filesystem tracking backend"),
    ],
)
def test_a_wrong_store_is_an_error_at_once(address, reason, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("not a database, but long enough to be looked at as one" * 20)
    address = address.format(folder=tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(TrackingError, match=reason) as raised, tracking.run("a", "b"):
        pass
    assert address in str(raised.value)
    assert "check MLFLOW_TRACKING_URI" in str(raised.value)


def test_what_broke_the_run_is_not_hidden_by_a_store_that_is_gone(mlflow_store, tmp_path):
    def fails():
        with tracking.run("nights", "a"):
            (tmp_path / "mlflow.db").write_bytes(b"gone" * 500)
            raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        fails()
