"""The pod that makes a night's RayJob and ends with its exit code, against an API of our own."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from infra import drain, health, submit
from infra.submit import Api, SubmitConfig
from pipelines.services.faults import UnavailableError

TEMPLATE = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": "spair-nightly", "labels": {"app.kubernetes.io/part-of": "spair"}},
    "spec": {"entrypoint": "python jobs/nightly_derain.py", "suspend": True},
}
CONFIG = SubmitConfig("spair-nightly", job="spair-nightly-1", uid="u-1", poll_seconds=0.01)


class Kubernetes(BaseHTTPRequestHandler):
    """As much of the Kubernetes API as RayJobs need; a RayJob that is made passes through `ends`."""

    def do_GET(self):
        server = self.server
        server.asked.append((self.command, self.path, self.headers["Authorization"]))
        if server.refuses:
            return self._answer(server.refuses.pop(0), {})
        if "labelSelector" in self.path:
            return self._answer(200, {"items": [job | {"status": server.ends[0]} for job in server.made]})
        if self.path.endswith("/spair-nightly"):
            return self._answer(200, TEMPLATE)
        status = server.ends.pop(0) if len(server.ends) > 1 else server.ends[0]
        return self._answer(200, {"metadata": {}, "status": status})

    def do_POST(self):
        if self.server.refuses:
            return self._answer(self.server.refuses.pop(0), {})
        made = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        made["metadata"]["name"] = made["metadata"]["generateName"] + "x7k2p"
        self.server.made.append(made)
        return self._answer(201, made)

    def _answer(self, code, value):
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def kubernetes():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Kubernetes)
    server.made, server.asked, server.refuses, server.ends = [], [], [], [{}]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def api(kubernetes, tmp_path):
    (tmp_path / "namespace").write_text("spair\n")
    (tmp_path / "token").write_text("of-the-pod\n")
    (tmp_path / "ca.crt").write_text("")
    return Api(f"http://127.0.0.1:{kubernetes.server_port}", account=tmp_path, patience=0.2)


def ended(status="FAILED", state="Failed", message=""):
    return {"jobDeploymentStatus": state, "jobStatus": status, "message": message}


def failed_with(code):
    return ended(message=f"Job entrypoint command failed with exit code {code}, last available logs ...")


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (ended("SUCCEEDED", "Complete"), 0),
        (failed_with(2), 2),
        (failed_with(4), 4),
        (failed_with(75), 75),
        (failed_with(3), 0),  # nothing to do
        (ended("STOPPED", "Complete"), 143),
        (ended("", message="the head could not be reached"), 75),
        (ended("", "ValidationFailed", "the spec is wrong"), 2),
    ],
)
def test_the_night_ends_with_the_jobs_own_exit_code(kubernetes, api, end, code):
    kubernetes.ends = [{}, {"jobDeploymentStatus": "Initializing"}, {"jobDeploymentStatus": "Running"}, end]
    assert submit.submit(CONFIG, api) == code
    (made,) = kubernetes.made
    assert made["spec"] == {"entrypoint": "python jobs/nightly_derain.py", "suspend": False}
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    assert made["metadata"]["labels"] == {
        "app.kubernetes.io/part-of": "spair",
        "spair/run": "spair-nightly-1",
    }
    assert {token for _, _, token in kubernetes.asked} == {"Bearer of-the-pod"}


@pytest.mark.parametrize("state", ["Running", "Initializing"])
def test_the_next_attempt_waits_for_what_is_running(kubernetes, api, state):
    kubernetes.made = [{"metadata": {"name": "spair-nightly-before"}}]
    kubernetes.ends = [{"jobDeploymentStatus": state}, ended("SUCCEEDED", "Complete")]
    assert submit.submit(CONFIG, api) == 0
    assert len(kubernetes.made) == 1
    assert any(path.endswith("/spair-nightly-before") for _, path, _ in kubernetes.asked)


def test_the_next_attempt_makes_another_of_one_that_failed(kubernetes, api):
    kubernetes.made = [{"metadata": {"name": "spair-nightly-before"}}]
    kubernetes.ends = [failed_with(75)]
    assert submit.submit(CONFIG, api) == 75
    assert len(kubernetes.made) == 2


def test_an_api_that_is_busy_is_asked_again_and_one_that_stays_so_is_an_error(kubernetes, api):
    kubernetes.ends = [ended("SUCCEEDED", "Complete")]
    kubernetes.refuses = [503, 429]
    assert submit.submit(CONFIG, api) == 0
    kubernetes.refuses = [503] * 1000
    with pytest.raises(UnavailableError, match="503"):
        submit.submit(CONFIG, api)


def test_what_is_not_allowed_is_said(kubernetes, api):
    kubernetes.refuses = [403]
    with pytest.raises(RuntimeError, match="403"):
        submit.submit(CONFIG, api)


class Jobs:
    """A JobSubmissionClient whose jobs end when they have been asked about so often."""

    def __init__(self, **lives):
        self.lives, self.stopped = lives, []

    def list_jobs(self):
        return [SimpleNamespace(submission_id=name, status=self._status(name)) for name in self.lives]

    def stop_job(self, name):
        self.stopped.append(name)

    def get_job_status(self, name):
        self.lives[name] -= 1
        return self._status(name)

    def _status(self, name):
        return SimpleNamespace(is_terminal=lambda: self.lives[name] <= 0)


def test_a_head_is_drained_of_what_runs_and_says_what_did_not_end():
    jobs = Jobs(done=0, quick=2, slow=10**9)
    assert drain.drain(jobs, patience=0.1, pause=0.001) == ["slow"]
    assert jobs.stopped == ["quick", "slow"]


def test_who_asks_what_draining_is_drains_nothing(monkeypatch, capsys):
    monkeypatch.setattr(drain, "drain", lambda *_: pytest.fail("drained"))
    monkeypatch.setattr(sys, "argv", ["drain", "--help"])
    with pytest.raises(SystemExit):
        drain.main()
    assert "Stop the jobs of this Ray head" in capsys.readouterr().out


def test_a_container_is_well_while_its_raylet_answers(kubernetes, tmp_path):
    nowhere = "http://127.0.0.1:1/api/local_raylet_healthz"
    assert health.healthy(nowhere, tmp_path)  # no raylet is meant to run
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "comm").write_text("raylet\n")
    assert not health.healthy(nowhere, tmp_path)
    assert health.healthy(f"http://127.0.0.1:{kubernetes.server_port}/any", tmp_path)
    kubernetes.refuses = [503]
    assert not health.healthy(f"http://127.0.0.1:{kubernetes.server_port}/any", tmp_path)
