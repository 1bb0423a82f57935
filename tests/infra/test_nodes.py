"""Jobs on a real cluster of three nodes, by the dashboard's job API: on all of them, and one is killed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.state import list_actors, list_nodes

from infra import stack
from pipelines.data import shards
from pipelines.restoration.manifest import RESTORED, Manifest
from pipelines.services import storage
from spair_core.images import encode_png
from tests.pipelines.data.test_shards import row
from tests.pipelines.media.test_clips import make_clip

ROOT = Path(__file__).parents[2]
NODES, CPUS = 3, 3
# Beside other tests, on two cores, the nodes' agents do not come up in minutes.
quiet = pytest.mark.skipif(
    "SPAIR_NODES" not in os.environ, reason="wants a machine of its own: SPAIR_NODES=1"
)
pytestmark = [pytest.mark.long, pytest.mark.cluster, pytest.mark.xdist_group("nodes"), quiet]


@dataclass
class Cluster:
    """Three nodes that another process holds, and how they are reached."""

    holder: subprocess.Popen[str]
    address: str

    def submit(self, *command: str) -> str:
        """A job as the README submits it; gives its id."""
        submission = f"job-{time.monotonic_ns()}"
        submit = ["ray", "job", "submit", "--no-wait", "--submission-id", submission, "--working-dir", "."]
        deadline = time.monotonic() + 120
        while True:
            done = subprocess.run(
                [str(Path(sys.executable).with_name(submit[0])), *submit[1:], "--", "python", *command],
                env={**os.environ, "RAY_API_SERVER_ADDRESS": self.address},
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            told = done.stdout + done.stderr
            if "No available agent" not in told or time.monotonic() > deadline:
                break  # a node's agent starts after the node
        assert done.returncode == 0, told
        return submission

    def ended(self, submission: str, seconds: float = 400) -> str:
        """What a job printed; it must have ended well."""
        client = JobSubmissionClient(self.address)
        deadline = time.monotonic() + seconds
        while not client.get_job_status(submission).is_terminal() and time.monotonic() < deadline:
            time.sleep(0.5)
        log: str = client.get_job_logs(submission)
        assert client.get_job_status(submission) == JobStatus.SUCCEEDED, log
        return log

    def nodes_of(self, actors: str) -> list[str]:
        """The node of each actor of a class that lives or has lived."""
        found = list_actors(address=self.address, filters=[("class_name", "=", actors)], detail=True)
        return [actor.node_id for actor in found if actor.node_id]

    def others(self) -> set[str]:
        """The nodes that live, but for the head."""
        return {
            node.node_id
            for node in list_nodes(address=self.address)
            if node.state == "ALIVE" and not node.is_head_node
        }

    def kill(self, node: str) -> None:
        """A node that is not the head, with all that runs on it, at once."""
        assert self.holder.stdin is not None
        assert self.holder.stdout is not None
        self.holder.stdin.write(f"{node}\n")
        self.holder.stdin.flush()
        assert self.holder.stdout.readline() == "killed\n"


@pytest.fixture(scope="module")
def mlflow_uri(empty_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tracking")
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture(scope="module")
def nodes(object_store: None, mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    environment = {"MLFLOW_TRACKING_URI": mlflow_uri, "RAY_AUTH_MODE": os.environ["RAY_AUTH_MODE"]}
    # Jobs say "python" and mean this one.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with stack.ray_on_loopback() as private, pytest.MonkeyPatch.context() as patched:
        for name, value in (private | environment).items():
            patched.setenv(name, value)
        command = [sys.executable, "-m", "tests.infra.held_nodes", str(NODES), str(CPUS)]
        holder = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert holder.stdout is not None
            yield Cluster(holder, holder.stdout.readline().strip())
            holder.communicate(timeout=240)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(holder.pid, signal.SIGKILL)


@pytest.fixture
def bucket(s3: str, tiny_weights: bytes, photos: list[np.ndarray]) -> str:
    """A night, a model, and shards to train on."""
    storage.write_bytes(f"{s3}/model", tiny_weights)
    for number in range(18):
        storage.write_bytes(f"{s3}/2026-11-20/{number:02d}.png", encode_png(photos[number % 4][:96, :128]))
    rows = [row(str(i), photos[i % 3][40 * i : 40 * i + 40, :48]) for i in range(6)]
    shards.commit(f"{s3}/shards", [shards.write_shard(f"{s3}/shards", rows)], {})
    return s3


def test_a_night_is_spread_over_all_nodes(nodes: Cluster, bucket: str) -> None:
    places = ["--source", f"{bucket}/{{night}}", "--destination", f"{bucket}/dry/{{night}}"]
    job = ["jobs/nightly_derain.py", *places, "--night", "2026-11-20", "--model", f"{bucket}/model"]
    log = nodes.ended(nodes.submit(*job, "--actors", str(NODES)))
    assert [item.verdict for item in Manifest(f"{bucket}/dry/2026-11-20")] == [RESTORED] * 18, log
    assert len(set(nodes.nodes_of("MapWorker(MapBatches(_Restorer))"))) == NODES


def test_a_training_outlives_one_of_its_nodes(nodes: Cluster, bucket: str, mlflow_uri: str) -> None:
    places = ["--data", f"{bucket}/shards", "--storage", f"{bucket}/runs", "--name", "deblur-1"]
    small = ["--localize-epochs", "2", "--restore-epochs", "6", "--epoch-steps", "2", "--batch-size", "2"]
    share = ["--crop-size", "16", "--workers", "2", "--cpus-per-worker", "2"]
    job = nodes.submit("jobs/train_deblur.py", *places, *small, *share)
    deadline = time.monotonic() + 300
    while not any("checkpoint" in item.key for item in storage.list_objects(bucket)):
        assert time.monotonic() < deadline, JobSubmissionClient(nodes.address).get_job_logs(job)
        time.sleep(0.2)
    used = set(nodes.nodes_of("RayTrainWorker"))
    assert len(used) == 2
    nodes.kill(next(iter(used & nodes.others())))
    log = nodes.ended(job)
    assert "RETRY" in log
    assert "registered: models:/spair-blur/1" in log
    client = mlflow.MlflowClient(mlflow_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("spair-training").experiment_id])

    def epochs(name: str) -> list[int]:
        return [metric.step for metric in client.get_metric_history(run.info.run_id, name)]

    assert epochs("train_bce").count(0) == 1  # it went on from its checkpoint
    assert set(epochs("train_l1")) == set(range(2, 8))


def test_a_night_outlives_one_of_its_nodes(
    nodes: Cluster, bucket: str, photos: list[np.ndarray], tmp_path: Path
) -> None:
    night, dry = f"{bucket}/2026-11-21", f"{bucket}/dry/2026-11-21"
    for number in range(40):
        storage.write_bytes(f"{night}/{number:02d}.png", encode_png(photos[number % 4]))
    frames = [np.roll(photos[0][:240, :320], 2 * k, axis=1) for k in range(90)]
    storage.write_bytes(f"{night}/drive.mp4", make_clip(tmp_path / "drive.mp4", frames).read_bytes())
    places = ["--source", night, "--destination", dry, "--model", f"{bucket}/model", "--actors", "2"]
    job = nodes.submit("jobs/restore_bulk.py", *places)
    deadline = time.monotonic() + 300
    while not storage.exists(f"{dry}/00.png"):
        assert time.monotonic() < deadline, JobSubmissionClient(nodes.address).get_job_logs(job)
        time.sleep(0.1)
    nodes.kill(next(iter(nodes.others())))
    log = nodes.ended(job)
    book = list(Manifest(dry))
    assert [item.verdict for item in book] == [RESTORED] * 41, log
    assert {item.key: item.frames for item in book}["drive.mp4"] == 90
    for item in book:  # what the manifest says of it is what is there
        assert hashlib.sha256(storage.read_bytes(item.output_uri)).hexdigest() == item.output_digest
