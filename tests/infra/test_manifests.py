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
from sqlalchemy.engine import make_url

from infra import drain
from jobs import entry
from pipelines.restoration.restore import RestoreConfig
from pipelines.training.settings import TrainConfig
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


@pytest.mark.long
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
        asked = worker["containers"][0]["resources"]["requests"]
        assert group["rayStartParams"]["num-cpus"] == asked["cpu"]
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
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        name, _, tag = container["image"].partition(":")
        assert re.fullmatch(r"v?\d+\.\d+[\w.-]*", tag), container["image"]
        if name == "spair":
            assert tag in (f"{VERSION}-cuda", f"{VERSION}-cpu")
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


SERVERS = manifests.of_kind("Deployment") + manifests.of_kind("StatefulSet")


@pytest.mark.parametrize(
    "server", [found for _, found in SERVERS], ids=lambda found: found["metadata"]["name"]
)
def test_a_server_is_found_by_its_service_and_asked_how_it_is(server):
    labels = server["spec"]["template"]["metadata"]["labels"]
    (container,) = server["spec"]["template"]["spec"]["containers"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    (service,) = (
        s for _, s in manifests.of_kind("Service") if s["metadata"]["name"] == server["metadata"]["name"]
    )
    assert service["spec"]["selector"].items() <= labels.items()
    assert {port["port"] for port in service["spec"]["ports"]} == {
        p["containerPort"] for p in container["ports"]
    }
    policies = [found for _, found in manifests.of_kind("NetworkPolicy")]
    (policy,) = (p for p in policies if p["spec"]["podSelector"].get("matchLabels") == labels)
    (allowed,) = policy["spec"]["ingress"]
    assert {port["port"] for port in allowed["ports"]} == {p["containerPort"] for p in container["ports"]}


def test_the_mlflow_server_is_the_clients_version_and_takes_its_flags():
    from mlflow.cli import server as command

    (deployment,) = (found for _, found in manifests.of_kind("Deployment"))
    (container,) = next(manifests.pods(deployment))["containers"]
    assert container["image"] == f"spair-mlflow:{LOCK['mlflow']}"
    program, verb, *flags = container["command"] + container["args"]
    assert (program, verb) == ("mlflow", "server")
    given = command.make_context("server", flags).params
    assert given["port"] == 5000
    ((_, told),) = (each for each in manifests.of_kind("ConfigMap") if each[1]["metadata"]["name"] == "spair")
    address = told["data"]["MLFLOW_TRACKING_URI"].removeprefix("http://")
    assert address in given["allowed_hosts"].split(",")  # others are refused
    assert "@" in given["backend_store_uri"]
    assert ":" not in given["backend_store_uri"].partition("://")[2].partition("@")[0]  # no password


def test_the_mlflow_image_has_the_databases_driver():
    """SQLAlchemy takes another by default in each of its great versions, so that it is named."""
    told = [path.read_text() for path in INFRA.rglob("*") if path.suffix in (".yaml", ".md")]
    uris = re.findall(r"postgresql[+:][^\s\"'`]*", "\n".join(told))
    drivers = {make_url(uri).get_dialect().driver for uri in uris}
    (installed,) = re.findall(
        r'"(\w+)\[binary\]==[\d.]+"', (INFRA / "docker" / "Containerfile.mlflow").read_text()
    )
    assert drivers == {installed}
    assert all("+" in make_url(uri).drivername for uri in uris)


def test_jobs_reach_what_they_are_told_of_and_only_a_few_reach_them():
    ((_, policy),) = (each for each in manifests.of_kind("NetworkPolicy") if each[0] == "kuberay/namespace")
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["spec"]["podSelector"] == {}
    to = {port["port"] for rule in policy["spec"]["egress"] for port in rule.get("ports", ())}
    assert to == {53, 443, 5000, 6443}
    assert all("from" in rule for rule in policy["spec"]["ingress"])
    for _, pod in ((folder, found) for folder, found in BUILT if found["kind"] in ("RayJob", "CronJob")):
        for template in templates(pod):
            assert template["metadata"]["labels"]["app.kubernetes.io/part-of"] == "spair"


def templates(manifest):
    """Everything in a manifest that makes pods."""
    return (one for one in manifests.mappings(manifest) if "containers" in (one.get("spec") or {}))


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
