"""The embedded cluster, where the machine is too busy for it, and where nobody asked for it."""

import os
import subprocess
import sys

import pytest
import ray

from pipelines.services import cluster
from pipelines.services.faults import UnavailableError


@pytest.fixture
def starts(monkeypatch):
    """What `ray.init` does, one after another; an Exception is raised."""
    outcomes = []

    def start(**_):
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return outcomes


LATE = Exception("The current node timed out during startup. This\ncould happen.")


def test_a_cluster_that_comes_too_late_is_started_once_more(starts):
    starts += [LATE, None]
    cluster.connect(1)
    assert starts == []


def test_one_that_never_comes_is_told_in_a_line(starts):
    starts += [LATE, LATE]
    with pytest.raises(UnavailableError, match=r"startup\. This could happen\. Is it busy") as told:
        cluster.connect(1)
    assert "\n" not in str(told.value)
    assert starts == []


def test_an_interruption_is_none_of_these(starts):
    starts += [KeyboardInterrupt(), None]
    with pytest.raises(KeyboardInterrupt):
        cluster.connect(1)
    assert starts == [None]


def test_gpus_that_are_not_there_are_told_or_waited_for(monkeypatch, capsys):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match=r"the cluster has 0 GPUs; --num-gpus 0"):
        cluster.check_gpus(1.0)
    with pytest.raises(ValueError, match="the cluster has 0 GPUs"):
        cluster.cpu_shares(1, gpus=0.5)
    assert cluster.actors(3, gpus=0) == 3
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # which may bring up nodes
    cluster.check_gpus(1.0)
    assert "waiting for a node with a GPU" in capsys.readouterr().err


def test_nothing_but_connect_starts_a_cluster():
    code = "import pipelines, ray\ntry: ray.put(1)\nexcept Exception as error: print(error)"
    env = {name: value for name, value in os.environ.items() if name != "RAY_ENABLE_AUTO_CONNECT"}
    shown = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "Ray has not been started yet" in shown.stdout
