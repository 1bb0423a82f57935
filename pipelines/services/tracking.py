"""MLflow: runs that can be resumed by name, their metrics and pictures.

The store is MLFLOW_TRACKING_URI. Without it, everything goes to `mlflow.db` in the working directory,
and files to `mlruns` beside it; look at them with `mlflow ui --backend-store-uri sqlite:///mlflow.db`.

MLflow is imported where it is first used: that takes a second and a half, which `--help` and every worker
that reads or restores pictures would pay for nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import requests
from numpy.typing import NDArray

from pipelines.services.faults import UnavailableError
from spair_core.images import encode_png

if TYPE_CHECKING:
    from mlflow import MlflowClient


# MLflow reads these when it is imported. Its retries outlast the restart of a server in the middle of a
# run; that nothing is there at the start is found out by `_check`, in seconds.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")

RUN_TAG = "spair.run"
PARAM_LENGTH, TAG_LENGTH = 500, 5000
"""Longer values are cut, as MLflow would refuse them."""
PATIENCE = (4, 6)
"""Seconds to connect to a server, and to wait for its first answer."""
NO_ANSWER = "API request to"
"""Begins what MLflow says after it has asked a server in vain."""
GATEWAYS = (502, 503, 504)
"""What is answered in place of a server that does not."""
LOGIN = re.compile(r"(?<=://)[^/@\s]*@")
"""Name and password in an address, which are nobody's to read."""


_SETTING_UP = threading.Lock()


class TrackingError(RuntimeError):
    """MLflow cannot be used; the message names its address and what to do."""


class TrackingUnavailableError(TrackingError, UnavailableError):
    """MLflow's server does not answer."""


def now() -> str:
    """The time as manifests and versions hold it: UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def store_uri() -> str:
    """The tracking store: MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.

    Absolute, so that it means the same in a process with another working directory.
    """
    from sqlalchemy.engine import make_url

    named = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    database = _database(named)
    if database is None:
        return named
    return make_url(named).set(database=str(database.resolve())).render_as_string(hide_password=False)


def _database(store: str) -> Path | None:
    """The file of a store in SQLite."""
    from sqlalchemy.engine import make_url

    name = make_url(store).database if store.startswith("sqlite:") else None
    return Path(name) if name else None


def client() -> MlflowClient:
    """A client of the store, which mlflow's own functions use too from here on. Raises TrackingError."""
    import mlflow

    store = store_uri()
    with explained(store), _SETTING_UP:
        _check(store)
        mlflow.set_tracking_uri(store)
        return mlflow.MlflowClient(store)


def check() -> None:
    """Whether a run could be written. Raises TrackingError; in seconds where a server does not answer.

    What takes MLflow seconds (its import, and the schema of a new database) goes on beside the caller's work.
    """
    store = store_uri()
    with explained(store):
        _check(store)
        if database := _database(store):
            with closing(sqlite3.connect(database, timeout=PATIENCE[1])) as connection:
                connection.execute("BEGIN IMMEDIATE")  # takes the lock that writing takes
                connection.rollback()
    # Not a daemon: a schema is made to its end, whatever becomes of the job.
    threading.Thread(target=_warm_up, args=(store,)).start()


def _warm_up(store: str) -> None:
    with suppress(*_faults()), _SETTING_UP:  # whoever needs the store is told
        import mlflow

        mlflow.MlflowClient(store)


@cache
def _check(store: str) -> None:
    database = _database(store)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA schema_version")
    elif store.startswith(("http://", "https://")):
        answer = requests.head(store, timeout=PATIENCE)
        if answer.status_code in GATEWAYS:
            raise requests.HTTPError(f"{answer.status_code} {answer.reason}")


def _faults() -> tuple[type[Exception], ...]:
    """What MLflow lets through when a store or its files cannot be reached."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (
        *(MlflowException, SQLAlchemyError, sqlite3.Error, ImportError, OSError),
        *(BotoCoreError, ClientError, Boto3Error),
    )


@contextmanager
def explained(store: str | None = None) -> Iterator[None]:
    """Turn what MLflow raises into a TrackingError that names the store (by default the present one)."""
    try:
        yield
    except _faults() as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        silent = isinstance(error, requests.RequestException) or NO_ANSWER in lines[0]
        reason = "no server answers" if silent else lines[0]
        told = (
            f"MLflow at {store or store_uri()}: {reason}; check MLFLOW_TRACKING_URI (http://HOST:PORT of a "
            "server that runs, or sqlite:////PATH/mlflow.db, which only this machine sees)"
        )
        raise (TrackingUnavailableError if silent else TrackingError)(LOGIN.sub("", told)) from error


@dataclass(frozen=True)
class Run:
    """One MLflow run. Travels to other processes: it holds the store's address and the run's id.

    Every method raises TrackingError where the store cannot be reached.
    """

    store: str
    run_id: str

    def log_params(self, config: Any) -> None:
        """The values of a (nested) dataclass or mapping, by dotted name; those logged before stay."""
        from mlflow.entities import Param

        values = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
        with self._client() as client:
            known = client.get_run(self.run_id).data.params
            params = [Param(k, str(v)[:PARAM_LENGTH]) for k, v in flatten(values).items() if k not in known]
            client.log_batch(self.run_id, params=params)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Numbers at a step, in one call."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        with self._client() as client:
            client.log_batch(self.run_id, metrics=values)

    def log_panel(self, name: str, pixels: NDArray[np.uint8]) -> None:
        """A picture uint8 [H, W, 3], as panels/`name`.png."""
        self.log_bytes(f"panels/{name}.png", encode_png(pixels))

    def log_bytes(self, path: str, data: bytes) -> None:
        """A file of the run."""
        folder, _, name = path.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary, self._client() as client:
            local = Path(temporary) / name
            local.write_bytes(data)
            client.log_artifact(self.run_id, str(local), folder or None)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Words about the run."""
        from mlflow.entities import RunTag

        values = [RunTag(k, str(v)[:TAG_LENGTH]) for k, v in tags.items()]
        with self._client() as client:
            client.log_batch(self.run_id, tags=values)

    def end(self, status: str) -> None:
        """Close the run as FINISHED or FAILED."""
        with self._client() as client:
            client.set_terminated(self.run_id, status)

    @contextmanager
    def _client(self) -> Iterator[MlflowClient]:
        from mlflow import MlflowClient

        with explained(self.store):
            yield MlflowClient(self.store)


@contextmanager
def run(experiment: str, name: str) -> Iterator[Run]:
    """Start the run `name` of an experiment, or go on with the one of that name that was broken off.

    Ends FINISHED, or FAILED where the block raises. Raises TrackingError.
    """
    started = _start(experiment, name)
    try:
        yield started
    except BaseException:
        with suppress(TrackingError):  # what broke the run matters more
            started.end("FAILED")
        raise
    started.end("FINISHED")


def latest_run(experiment: str, name: str) -> Run | None:
    """The last one that `run` started under this name, ended or not. Raises TrackingError."""
    store, address = client(), store_uri()
    with explained(address):
        held = store.get_experiment_by_name(experiment)
        found = held and store.search_runs(
            [held.experiment_id],
            f"tags.`{RUN_TAG}` = '{_mark(name)}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
    return Run(address, found[0].info.run_id) if found else None


def _mark(name: str) -> str:
    """A name may hold quotes, which MLflow's filters cannot; its digest never does."""
    return hashlib.sha256(name.encode()).hexdigest()


def _start(experiment: str, name: str) -> Run:
    mark = _mark(name)
    store, address = client(), store_uri()
    with explained(address):
        number = _experiment(store, experiment, address)
        broken = store.search_runs(
            [number], f"tags.`{RUN_TAG}` = '{mark}' and attributes.status != 'FINISHED'", max_results=1
        )
        if broken:
            store.update_run(broken[0].info.run_id, status="RUNNING")
            return Run(address, broken[0].info.run_id)
        return Run(address, store.create_run(number, run_name=name, tags={RUN_TAG: mark}).info.run_id)


def _experiment(store: MlflowClient, name: str, address: str) -> str:
    found = store.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    database = _database(address)
    # MLflow would put the files into the working directory, wherever the database is.
    files = database and (database.parent / "mlruns" / quote(name, safe="")).as_uri()
    return str(store.create_experiment(name, artifact_location=files))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
