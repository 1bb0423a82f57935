"""The manifests: valid by the published schemas, pinned, without secrets, true to the jobs that they run."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import tomllib

import jsonschema
import pytest
import yaml

from infra import drain
from jobs import entry
from pipelines.restoration.restore import RestoreConfig
from pipelines.training.train import TrainConfig
from tests.infra import manifests
from tests.infra.manifests import INFRA, PROJECT

BUILT = list(manifests.built())
IDS = [f"{folder}-{found['kind']}-{found['metadata']['name']}" for folder, found in BUILT]
RAY_JOBS = manifests.of_kind("RayJob")
ray_jobs = pytest.mark.parametrize(("folder", "job"), RAY_JOBS, ids=[name for name, _ in RAY_JOBS])
PODS = [(folder, pod) for folder, found in BUILT for pod in manifests.pods(found)]
pods = pytest.mark.parametrize(
    ("folder", "pod"), PODS, ids=[f"{folder}-{k}" for k, (folder, _) in enumerate(PODS)]
)
LOCK = dict(line.split("==") for line in (PROJECT / "requirements.lock").read_text().split())
VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]


def grace_seconds() -> float:
    """What pipelines/README.md promises of a job that is interrupted."""
    return float(re.search(r"within (\d+) seconds", (PROJECT / "pipelines" / "README.md").read_text())[1])


@pytest.mark.parametrize("manifest", [found for _, found in BUILT], ids=IDS)
def test_a_manifest_is_what_the_schema_of_its_kind_allows(manifest):
    manifests.check(manifest)


@pytest.mark.parametrize("manifest", [found for _, found in BUILT], ids=IDS)
def test_a_field_that_nobody_reads_would_be_seen(manifest):
    wrong = copy.deepcopy(manifest)
    wrong.setdefault("spec", {})["concurencyPolicy"] = "Forbid"
    if manifest["kind"] in ("ConfigMap", "ServiceAccount", "Role", "RoleBinding"):
        wrong["metdata"] = {}
    with pytest.raises(jsonschema.ValidationError):
        manifests.check(wrong)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
@pytest.mark.parametrize("folder", manifests.FOLDERS, ids=lambda folder: folder.name)
def test_kubectl_builds_the_same(folder):
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)

    def key(found):
        return found["kind"], found["metadata"]["name"]

    assert sorted(yaml.safe_load_all(done.stdout), key=key) == sorted(manifests.build(folder), key=key)


def test_every_recipe_has_a_job_that_trains_it():
    recipes = {path.stem.replace("_", "-") for path in (PROJECT / "jobs").glob("train_*.py")}
    assert {folder.removeprefix("kuberay/") for folder, _ in RAY_JOBS} == recipes | {"restore", "nightly"}


@ray_jobs
def test_an_entry_point_is_a_job_with_flags_that_exist_and_as_many_gpus_as_it_uses(folder, job):
    config = manifests.parsed(job["spec"]["entrypoint"])
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    gpus = group["maxReplicas"] * int(container["resources"]["limits"]["nvidia.com/gpu"])
    if isinstance(config, TrainConfig):
        assert config.gpu
        assert config.workers == gpus
        assert config.min_workers is not None  # workers are on spot nodes
        assert config.cpus_per_worker < int(container["resources"]["requests"]["cpu"])  # some read
    else:
        # `auto` counts the GPUs that are there at the start, when the cluster has none.
        assert isinstance(config, RestoreConfig)
        assert config.actors * config.num_gpus == gpus


@ray_jobs
def test_workers_come_from_zero_and_a_cluster_goes_with_its_job(folder, job):
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert spec["shutdownAfterJobFinishes"]
    assert spec["ttlSecondsAfterFinished"] <= 3600
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == 0
        worker = group["template"]["spec"]
        assert worker["nodeSelector"]
        tolerated = {toleration["key"] for toleration in worker["tolerations"]}
        assert {"nvidia.com/gpu", "spair/spot", "cloud.google.com/gke-spot"} <= tolerated
    assert cluster["rayVersion"] == LOCK["ray"]


@ray_jobs
def test_a_head_that_goes_lets_its_job_end_in_order(folder, job):
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    container = head["containers"][0]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["python", "-m", "infra.drain"]
    (wait,) = (int(one["value"]) for one in container["env"] if one["name"] == "RAY_JOB_STOP_WAIT_TIME_S")
    assert grace_seconds() < wait < drain.PATIENCE < head["terminationGracePeriodSeconds"]
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        worker = group["template"]["spec"]
        assert worker["terminationGracePeriodSeconds"] >= 60
        assert worker["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][:2] == ["ray", "stop"]


@ray_jobs
def test_nodes_of_a_cluster_are_told_where_the_store_is_and_asked_how_they_are(folder, job):
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"configMapRef": {"name": "spair"}}, {"secretRef": {"name": "spair"}}]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["path"] in ("/api/gcs_healthz", "/api/local_raylet_healthz")


def test_the_night_is_tried_again_by_its_exit_code_and_never_twice_at_once():
    ((_, night),) = manifests.of_kind("CronJob")
    assert night["spec"]["concurrencyPolicy"] == "Forbid"
    job = night["spec"]["jobTemplate"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    action = {
        code: rule["action"]
        for rule in job["podFailurePolicy"]["rules"]
        for code in rule.get("onExitCodes", {"values": []})["values"]
    }
    assert {action[code] for code in (entry.FAILED, entry.USAGE)} == {"FailJob"}
    assert {action[code] for code in (entry.TOO_MANY_BAD, entry.HELD, entry.TRY_AGAIN, 143)} == {"Count"}
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # what a podFailurePolicy asks for
    assert manifests.parsed(" ".join(container["command"])).template == "spair-nightly"


def test_what_the_night_is_made_of_waits_in_the_cluster():
    ((_, template),) = (each for each in RAY_JOBS if each[0] == "kuberay/nightly")
    assert template["metadata"]["name"] == "spair-nightly"
    assert template["spec"]["suspend"]
    assert template["spec"]["backoffLimit"] == 0


@pods
def test_a_container_is_pinned_bounded_and_without_privileges(folder, pod):
    assert pod["securityContext"]["runAsNonRoot"]
    for container in pod["containers"]:
        name, _, tag = container["image"].partition(":")
        assert re.fullmatch(r"v?\d+\.\d+[\w.-]*", tag), container["image"]
        if name == "spair":
            assert tag in (f"{VERSION}-cuda", f"{VERSION}-cpu")
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_only_what_asks_the_kubernetes_api_has_a_token_for_it():
    for folder, pod in PODS:
        asks = any(word in json.dumps(pod) for word in ("infra.submit", "infra.drain"))
        assert asks or pod.get("automountServiceAccountToken") is False, folder


def test_secrets_are_named_and_never_there():
    """Whatever looks like one: a key of AWS, a token, a password that is more than a reference."""
    looks = re.compile(
        r"AKIA[0-9A-Z]{12,}|-----BEGIN|ghp_\w{20,}|xox[bp]-|eyJ[\w-]{20,}\.|"
        r"://[^/\s:@]+:[^$/\s@{][^/\s@]*@|"
        r"(?i:(?:password|passwd|secret_?(?:access_?)?key|auth_?token)\w*[\"']?\s*[:=]\s*[\"']?[A-Za-z0-9+][A-Za-z0-9+/]{7,})"
    )
    for bad in (
        "postgresql://mlflow:hunter22@db",
        "AWS_SECRET_ACCESS_KEY: wJalrXUtnFEMI",
        "password=hunter2222",
    ):
        assert looks.search(bad), bad
    for path in INFRA.rglob("*"):
        if path.suffix in (".yaml", ".json", ".md", "") and path.is_file():
            assert not looks.search(path.read_text()), path
    assert not [found for _, found in BUILT if found["kind"] == "Secret"]
