"""Make a RayJob of a suspended one, wait for its end, and end with its exit code.

    python -m infra.submit --template spair-nightly

This is what a CronJob runs, inside the cluster, whose `concurrencyPolicy` and `podFailurePolicy` then hold
for the job itself and not for its submission. Started again for the same Kubernetes Job, it waits for the
RayJob that the attempt before has made. Needs the rights to get, list and create RayJobs in its namespace.
"""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from jobs.entry import NOTHING_TO_DO, TRY_AGAIN, run
from pipelines.services.faults import UnavailableError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, its namespace and the certificate of the API."""
RUN_LABEL = "spair/run"
ENDED = ("Complete", "Failed", "ValidationFailed")
"""States (`jobDeploymentStatus`) from which a RayJob does not come back."""
PATIENCE = 300.0
"""Seconds for which an API that does not answer is asked again."""
STOPPED = 143
CODE = re.compile(r"failed with exit code (\d+)")
"""What Ray says of a job that ended with an error; KubeRay hands it on."""


@dataclass(frozen=True)
class SubmitConfig:
    """Which RayJob, and for which Kubernetes Job."""

    template: str
    """Name of the suspended RayJob that says what is run."""
    job: str = field(default_factory=lambda: os.environ.get("JOB_NAME", "by-hand"))
    """Name of the Kubernetes Job; its attempts share one RayJob at a time. By default JOB_NAME."""
    uid: str = field(default_factory=lambda: os.environ.get("JOB_UID", ""))
    """That Job's uid: with it goes the RayJob. By default JOB_UID."""
    poll_seconds: float = 15.0
    """Between two looks at the RayJob."""


class Api:
    """The RayJobs of this pod's namespace. Raises UnavailableError where the API does not answer for long."""

    def __init__(
        self, address: str | None = None, account: Path = ACCOUNT, patience: float = PATIENCE
    ) -> None:
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        host = f"[{host}]" if ":" in host else host
        namespace = (account / "namespace").read_text().strip()
        self.url = f"{address or f'https://{host}:{port}'}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self.account, self.patience = account, patience

    def get(self, name: str) -> dict[str, Any]:
        """One RayJob."""
        return self._ask("GET", f"/{name}")

    def of_run(self, run_name: str) -> list[dict[str, Any]]:
        """Those that were made for a Kubernetes Job."""
        return list(self._ask("GET", "", params={"labelSelector": f"{RUN_LABEL}={run_name}"})["items"])

    def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Make one; gives it as it was made."""
        return self._ask("POST", "", json=manifest)

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        until = time.monotonic() + self.patience
        while True:
            try:
                return self._once(method, path, **more)
            except UnavailableError:
                # What was made before an answer was lost would be made twice.
                if method != "GET" or time.monotonic() > until:
                    raise
                time.sleep(min(5.0, self.patience / 10))

    def _once(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        # The token is read each time: the kubelet puts a fresh one there every hour.
        headers = {"Authorization": f"Bearer {(self.account / 'token').read_text().strip()}"}
        certificate = str(self.account / "ca.crt")
        try:
            answer = requests.request(
                method, self.url + path, headers=headers, verify=certificate, timeout=30, **more
            )
        except requests.RequestException as error:
            raise UnavailableError(f"the Kubernetes API does not answer: {error}") from error
        if answer.status_code >= 500 or answer.status_code == 429:
            raise UnavailableError(f"the Kubernetes API: {answer.status_code} {answer.reason}")
        if not answer.ok:
            raise RuntimeError(f"the Kubernetes API: {answer.status_code} {answer.text[:500]}")
        return dict(answer.json())


def made_of(template: dict[str, Any], config: SubmitConfig) -> dict[str, Any]:
    """The RayJob of a run: the template, no longer suspended, that goes when its Kubernetes Job does."""
    labels = template["metadata"].get("labels", {}) | {RUN_LABEL: config.job}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": config.job, "uid": config.uid}
    return {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": {
            "generateName": f"{config.template}-",
            "labels": labels,
            "ownerReferences": [owner] if config.uid else [],
        },
        "spec": template["spec"] | {"suspend": False},
    }


def code_of(status: dict[str, Any]) -> int:
    """The exit code of a RayJob that has ended: its job's own, and TRY_AGAIN where the cluster was lost.

    An empty source is no failure of a night's and gives 0.
    """
    if status.get("jobStatus") == "SUCCEEDED":
        return 0
    if status.get("jobStatus") == "STOPPED":
        return STOPPED
    found = CODE.search(status.get("message", ""))
    code = int(found[1]) if found and status.get("jobStatus") == "FAILED" else TRY_AGAIN
    return 0 if code == NOTHING_TO_DO else code


def submit(config: SubmitConfig, api: Api) -> int:
    """Make the RayJob, or find the one that was made, and give its exit code when it has ended."""
    name = _made(config, api)
    state = ""
    while True:
        status = api.get(name).get("status", {})
        if status.get("jobDeploymentStatus", "") != state:
            state = status["jobDeploymentStatus"]
            print(f"{name}: {state}", file=sys.stderr, flush=True)
        if state in ENDED:
            print(f"{name}: {status.get('message', '')}", file=sys.stderr, flush=True)
            return 2 if state == "ValidationFailed" else code_of(status)
        time.sleep(config.poll_seconds)


def _made(config: SubmitConfig, api: Api) -> str:
    for job in api.of_run(config.job):
        status = job.get("status", {})
        if status.get("jobDeploymentStatus") not in ENDED or status.get("jobStatus") == "SUCCEEDED":
            return str(job["metadata"]["name"])
    made = api.create(made_of(api.get(config.template), config))
    return str(made["metadata"]["name"])


def main(config: SubmitConfig) -> int:
    """Submit within the cluster that this pod is in."""
    if not ACCOUNT.exists():
        raise RuntimeError(f"{ACCOUNT} is not there: this runs in a pod, with a service account")
    return submit(config, Api())


if __name__ == "__main__":
    run(main, SubmitConfig, __doc__ or "")
