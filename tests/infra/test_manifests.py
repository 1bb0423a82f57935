"""The commands in the manifests are those of the jobs: every flag parses."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml

from jobs.nightly_derain import NightlyConfig
from jobs.train_derain import RECIPE
from pipelines.training.train import TrainConfig

KUBERAY = Path(__file__).resolve().parents[2] / "infra" / "kuberay"
CONFIGS = {
    "jobs/train_derain.py": lambda args: tyro.cli(
        TrainConfig, default=RECIPE, args=args, config=(tyro.conf.OmitArgPrefixes,)
    ),
    "jobs/nightly_derain.py": lambda args: tyro.cli(
        NightlyConfig, args=args, config=(tyro.conf.OmitArgPrefixes,)
    ),
}


def documents() -> Iterator[dict[str, Any]]:
    for path in sorted(KUBERAY.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield document
            if document["kind"] == "ConfigMap":
                yield from (yaml.safe_load(text) for text in document["data"].values())


RAY_JOBS = [document for document in documents() if document["kind"] == "RayJob"]


def test_there_is_a_training_and_a_nightly_job():
    kinds = [document["kind"] for document in documents()]
    assert kinds.count("RayJob") == 2
    assert kinds.count("CronJob") == 1


@pytest.mark.parametrize("job", RAY_JOBS, ids=lambda job: job["metadata"]["generateName"])
def test_entry_points_are_jobs_with_flags_that_exist(job):
    python, script, *args = shlex.split(job["spec"]["entrypoint"])
    assert python == "python"
    config = CONFIGS[script](args)
    assert importlib.import_module(script.removesuffix(".py").replace("/", "."))
    gpus = sum(group["replicas"] for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"])
    assert gpus == (config.workers if isinstance(config, TrainConfig) else config.actors)


@pytest.mark.parametrize("job", RAY_JOBS, ids=lambda job: job["metadata"]["generateName"])
def test_every_container_gets_the_credentials(job):
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "spair"}}]
