"""MLflow: runs that can be resumed by name, their metrics and pictures, and registered models."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import mlflow
import mlflow.pyfunc
import numpy as np
import requests
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from spair_core.images import encode_png
from spair_core.weights import ModelCard, digest

RUN_TAG = "spair.run"
WEIGHTS_FILE = "model.safetensors"
VALUE_LENGTH = 500
PROJECT = Path(__file__).resolve().parents[1]


class TrackingError(RuntimeError):
    """MLflow cannot be used; the message names its address and what to do."""


def store_uri() -> str:
    """The tracking store, absolute: MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if not named:
        return f"sqlite:///{Path('mlflow.db').resolve()}"
    relative = named.removeprefix("sqlite:///")
    if relative != named and not relative.startswith("/"):
        return f"sqlite:///{Path(relative).resolve()}"
    return named


def client() -> MlflowClient:
    """A client of the store; mlflow's own functions use the same one from here on."""
    mlflow.set_tracking_uri(store_uri())
    return MlflowClient(store_uri())


@contextmanager
def explained() -> Iterator[None]:
    """Turn what MLflow raises into a TrackingError that names the store."""
    try:
        yield
    except (MlflowException, requests.RequestException, SQLAlchemyError) as error:
        raise TrackingError(
            f"MLflow at {store_uri()}: {error}; check MLFLOW_TRACKING_URI and that the server runs"
        ) from error


@dataclass(frozen=True)
class Run:
    """One MLflow run. Travels to other processes: it holds the store's address and the run's id."""

    store: str
    run_id: str

    def log_params(self, config: Any) -> None:
        """The values of a (nested) dataclass, by dotted name. Those logged before stay as they are."""
        with explained():
            known = self._client.get_run(self.run_id).data.params
            values = flatten(
                asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
            )
            params = [Param(k, str(v)[:VALUE_LENGTH]) for k, v in values.items() if k not in known]
            self._client.log_batch(self.run_id, params=params)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Numbers at a step, in one call."""
        with explained():
            now = int(time.time() * 1000)
            self._client.log_batch(
                self.run_id,
                metrics=[Metric(name, float(value), now, step) for name, value in metrics.items()],
            )

    def log_panel(self, name: str, pixels: NDArray[np.uint8]) -> None:
        """A picture uint8 [H, W, 3], as panels/`name`.png."""
        self.log_bytes(f"panels/{name}.png", encode_png(pixels))

    def log_bytes(self, path: str, data: bytes) -> None:
        """A file of the run."""
        folder, _, name = path.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary, explained():
            local = Path(temporary) / name
            local.write_bytes(data)
            self._client.log_artifact(self.run_id, str(local), folder or None)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Words about the run."""
        with explained():
            self._client.log_batch(self.run_id, tags=[RunTag(k, str(v)[:5000]) for k, v in tags.items()])

    @property
    def _client(self) -> MlflowClient:
        return MlflowClient(self.store)


@contextmanager
def run(experiment: str, name: str) -> Iterator[Run]:
    """Start the run `name` of an experiment, or go on with the one of that name that was broken off.

    Ends FINISHED, or FAILED where the block raises. Raises TrackingError.
    """
    started = _start(experiment, name)
    try:
        yield started
    except BaseException:
        client().set_terminated(started.run_id, "FAILED")
        raise
    client().set_terminated(started.run_id, "FINISHED")


def _start(experiment: str, name: str) -> Run:
    with explained():
        store = client()
        found = store.get_experiment_by_name(experiment)
        number = found.experiment_id if found else store.create_experiment(experiment)
        broken = store.search_runs(
            [number], f"tags.`{RUN_TAG}` = '{name}' and attributes.status != 'FINISHED'", max_results=1
        )
        if broken:
            store.update_run(broken[0].info.run_id, status="RUNNING")
            return Run(store_uri(), broken[0].info.run_id)
        return Run(store_uri(), store.create_run(number, run_name=name, tags={RUN_TAG: name}).info.run_id)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def register_model(name: str, data: bytes, card: ModelCard, *, run: Run, tags: Mapping[str, str]) -> int:
    """Register a model file as a new version of `name`, and give its number. Raises TrackingError.

    The version loads as pyfunc (a column `picture` of encoded pictures in, restored ones and the
    degraded share out) anywhere: it brings the project's code along, and its weights as safetensors.
    """
    with explained(), tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        # MLflow would like an example picture to be restored now; the signature says enough.
        warnings.simplefilter("ignore", UserWarning)
        store = client()
        weights = Path(temporary) / WEIGHTS_FILE
        weights.write_bytes(data)
        saved = Path(temporary) / "model"
        mlflow.pyfunc.save_model(
            path=str(saved),
            python_model=str(PROJECT / "pipelines" / "registered_model.py"),
            artifacts={"weights": str(weights)},
            code_paths=[str(PROJECT / "kernels"), str(PROJECT / "spair_core")],
            signature=_signature(),
            pip_requirements=["torch", "numpy", "pillow", "safetensors", "pandas", "mlflow"],
        )
        store.log_artifacts(run.run_id, str(saved), "model")
        if not store.search_registered_models(f"name = '{name}'"):
            store.create_registered_model(name)
        source = f"{store.get_run(run.run_id).info.artifact_uri}/model"
        version = store.create_model_version(
            name,
            source,
            run.run_id,
            tags={"digest": digest(data), "task": card.task, **{k: str(v) for k, v in tags.items()}},
        )
    return int(version.version)


def _signature() -> ModelSignature:
    return ModelSignature(
        Schema([ColSpec(DataType.binary, "picture")]),
        Schema([ColSpec(DataType.binary, "restored"), ColSpec(DataType.double, "degraded_share")]),
    )
