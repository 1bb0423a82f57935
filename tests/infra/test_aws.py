"""What the jobs may do in the buckets, and the cluster without Kubernetes."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from pipelines.restoration.restore import RestoreConfig
from tests.infra import manifests
from tests.infra.manifests import INFRA

AWS = INFRA / "aws"
WRITING = ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")


def allows(policy: str, action: str, uri: str) -> bool:
    """Whether a policy file lets its owner do this to an object, or (s3:ListBucket) to its bucket."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    resource = f"arn:aws:s3:::{bucket}" if action == "s3:ListBucket" else f"arn:aws:s3:::{bucket}/{key}"

    def listed(value):
        return [value] if isinstance(value, str) else value

    return any(
        statement["Effect"] == "Allow"
        and action in listed(statement["Action"])
        and any(fnmatchcase(resource, each) for each in listed(statement["Resource"]))
        for statement in json.loads((AWS / policy).read_text())["Statement"]
    )


@pytest.mark.parametrize("policy", sorted(path.name for path in AWS.glob("*.json")))
def test_a_policy_names_what_it_allows_one_by_one(policy):
    document = json.loads((AWS / policy).read_text())
    assert document["Version"] == "2012-10-17"
    for statement in document["Statement"]:
        assert statement["Effect"] == "Allow"
        assert "*" not in json.dumps(statement["Action"])
        for resource in statement["Resource"]:
            assert re.fullmatch(r"arn:aws:s3:::[a-z0-9.-]+(/[\w/-]*\*)?", resource), resource
        # Asking for an object that is not there is answered "forbidden" instead, where names may be listed
        # below a prefix alone.
        assert "Condition" not in statement


@pytest.mark.parametrize("folder", [name for name, _ in manifests.of_kind("RayJob")])
def test_a_job_may_do_what_it_does_and_not_write_to_its_source(folder):
    (job,) = (found for name, found in manifests.of_kind("RayJob") if name == folder)
    config = manifests.parsed(job["spec"]["entrypoint"])
    if isinstance(config, RestoreConfig):
        policy, read, written = "restore.json", [config.source], [config.destination]
    else:
        policy, read, written = "train.json", [*config.data, *config.validation], [f"{config.storage}"]
    for uri in read + written:
        assert allows(policy, "s3:ListBucket", uri)
        assert allows(policy, "s3:GetObject", f"{uri}/a/b.jpg")
    for action in WRITING:
        assert all(allows(policy, action, f"{uri}/a/b.jpg") for uri in written)
        assert not any(allows(policy, action, f"{uri}/a/b.jpg") for uri in read)


def test_mlflow_may_do_what_it_does_in_its_own_folder_alone():
    (server,) = (found for _, found in manifests.of_kind("Deployment"))
    (container,) = next(manifests.pods(server))["containers"]
    (files,) = (word.partition("=")[2] for word in container["args"] if "artifacts" in word)
    for action in (*WRITING, "s3:GetObject", "s3:ListBucket"):
        assert allows("mlflow.json", action, f"{files}/1/model.safetensors")
        assert not allows("restore.json", action, f"{files}/1/model.safetensors")


def test_the_cluster_of_the_launcher_is_one_and_grows_from_nothing():
    cluster = prepare_config(yaml.safe_load((AWS / "cluster.yaml").read_text()))
    validate_config(cluster)
    assert cluster["available_node_types"]["gpu"]["min_workers"] == 0
    assert cluster["available_node_types"]["head"]["resources"]["CPU"] == 0
    for word in ("head_image", "worker_image"):
        assert not cluster["docker"][word].endswith("latest")
    with pytest.raises(Exception, match="typo"):
        validate_config(cluster | {"typo": 1})
