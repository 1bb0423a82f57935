"""Services that do not answer: refused, mute, or of a name that nobody knows; told with the remedy."""

import os

import pytest

from pipelines.services import cluster, locations, storage, tracking
from pipelines.services.faults import UnavailableError
from pipelines.services.storage import StorageError, StoreUnavailableError
from pipelines.services.tracking import TrackingError, TrackingUnavailableError
from tests.pipelines.services.between import between, silence

pytestmark = pytest.mark.long

REFUSED, UNKNOWN = "127.0.0.1:1", "nobody.invalid:80"


@pytest.fixture(params=["refused", "mute", "unknown"])
def address(request, monkeypatch):
    """HOST:PORT of no service. Without a bound on each question the mute one would be waited for."""
    monkeypatch.setitem(locations.IMPATIENT, "read_timeout", 0.2)
    monkeypatch.setattr(tracking, "PATIENCE", (1, 0.2))
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with silence() as port:
        yield {"refused": REFUSED, "mute": f"127.0.0.1:{port}", "unknown": UNKNOWN}[request.param]


def test_a_store(address, s3, monkeypatch, fresh_clients):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
    fresh_clients()
    asks = [storage.read_bytes, storage.exists, storage.check_writable, storage.check_source]
    for ask in asks:
        with pytest.raises(StoreUnavailableError, match=r"s3://tests.*check AWS_ENDPOINT_URL"):
            ask(f"{s3}/x")


def test_a_store_behind_which_is_no_such_bucket(s3):
    with pytest.raises(StorageError, match="no such bucket at http"):
        storage.check_writable("s3://no-such-bucket/x")


def test_an_mlflow_server(address, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{address}")
    with pytest.raises(TrackingUnavailableError, match=r"no server answers; check MLFLOW_TRACKING_URI"):
        tracking.check()


def test_an_mlflow_server_behind_a_gateway_that_answers_for_it(monkeypatch, object_store):
    with between(os.environ["AWS_ENDPOINT_URL"]) as gateway:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", gateway.url)
        gateway.faults["HEAD"] = ["busy"]
        with pytest.raises(TrackingUnavailableError, match="no server answers"):
            tracking.check()


def test_an_mlflow_database(tmp_path, monkeypatch, mlflow_store):
    tracking.check()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/mlflow.db")
    with pytest.raises(TrackingError, match=r"sqlite:////proc/mlflow\.db"):
        tracking.check()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_ray_head(address, scheme, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"{scheme}{address}")
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests may have a cluster
    for ask in (cluster.check_answers, cluster.connect):
        with pytest.raises(UnavailableError, match=r"no head answers.*check RAY_ADDRESS"):
            ask()
