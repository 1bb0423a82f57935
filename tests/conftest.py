"""What the tests share: pictures, a tiny model, a real S3 server, a real Ray cluster, a real MLflow store."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import forked

SETTINGS = {
    # A test that needs a cluster says so: none starts by itself.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_AUTH_MODE": "disabled",
    # Workers wait for the next test. By default they end after a second, and imports are most of their work.
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
    "RAY_num_workers_soft_limit": "8",
    # By default they give way to everything else, such as the other half of the tests.
    "RAY_worker_niceness": "0",
    # Ray Train looks at its workers every two seconds, and every epoch waits to be looked at.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # A process a run that waits for nodes to be taken away.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Threads of torch that wait for one another turn on the spot by default, on CPUs that others want.
    "OMP_WAIT_POLICY": "passive",
}
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)
torch.set_num_threads(1)

NUMBERS = itertools.count()


def pytest_itemcollected(item: pytest.Item) -> None:
    """All tests on the session's cluster go to one worker: it is started once, and has its CPUs alone. Each
    is told apart by its mark, also where another fixture brings the cluster."""
    if "cluster" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.cluster)
        item.add_marker(pytest.mark.xdist_group("cluster"))


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not look through it while tests run."""
    gc.freeze()


@pytest.fixture(scope="session")
def photos() -> list[np.ndarray]:
    """Photographs that scikit-image ships, uint8 [H, W, 3]."""
    import skimage.data

    return [skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket(), skimage.data.astronaut()]


@pytest.fixture(scope="session")
def tiny_config():
    """A network small enough to run in milliseconds."""
    from spair_core.network import LocalizerConfig, NetworkConfig, RestorerConfig

    return NetworkConfig(
        LocalizerConfig(
            channels=(8, 8, 8), growth=(4, 4, 4), encoder_layers=(1, 1, 1), decoder_layers=(1, 1)
        ),
        RestorerConfig(
            channels=(8, 8, 8),
            growth=(4, 4, 4),
            layers=(1, 1, 1),
            full_channels=4,
            sparse_growth=(4, 4, 4, 4),
        ),
    )


@pytest.fixture(scope="session")
def tiny_weights(tiny_config) -> bytes:
    """A saved model of that network, seeded."""
    from spair_core import weights
    from spair_core.network import Spair

    torch.manual_seed(0)
    return weights.save(Spair(tiny_config), weights.ModelCard(tiny_config, "rain", 0.05, {"from": "tests"}))


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real S3 server on loopback, in the environment of this process and of what it starts."""
    from infra import stack

    folder = tmp_path_factory.mktemp("s3") / "store"
    with stack.object_store(folder, buckets=("tests",)) as environment:
        before = dict(os.environ)
        os.environ.update(environment)
        yield
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def s3(object_store: None) -> str:
    """A prefix of a bucket that no other test uses."""
    return f"s3://tests/{next(NUMBERS):03d}"


@pytest.fixture(scope="session")
def cluster(object_store: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A local Ray cluster of two CPUs, whose workers reach the object store."""
    import ray
    from ray._private import ray_constants

    from pipelines.services import cluster as ray_cluster

    with forked.prepared(tmp_path_factory.mktemp("forked")) as place:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(ray_constants, "SETUP_WORKER_FILENAME", forked.__file__)
            patched.setenv(forked.PLACE, place)
            ray_cluster.connect(2)
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its schema: making one takes seconds, copying one does not."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def mlflow_store(empty_mlflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow store of this test's own."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    return uri


@pytest.fixture
def gpu() -> str:
    """The device's name, where the kernels can run natively."""
    from kernels.cuda import device

    if not torch.cuda.is_available():
        pytest.skip("torch sees no NVIDIA GPU here: not run natively")
    if reason := device.unavailable():
        pytest.skip(f"{reason}: not run natively")
    return "cuda"
