"""Every command of the runbook is one that its program takes, on files and objects that are there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from itertools import pairwise

import pytest
import yaml

from tests.infra import manifests
from tests.infra.manifests import INFRA, PROJECT

TEXT = (INFRA / "README.md").read_text()
JOB = re.compile(r"\bpython (?:jobs/\w+\.py|-m infra\.\w+)")


COMMANDS = manifests.commands(TEXT, "python|kubectl|docker|ray|aws|mlflow")


def test_commands_are_found():
    assert len([line for line in COMMANDS if JOB.search(line)]) > 8
    assert len([line for line in COMMANDS if line.startswith("kubectl")]) > 15


@pytest.mark.parametrize("command", [line for line in COMMANDS if JOB.search(line)])
def test_a_jobs_command_is_one_that_it_takes(command):
    assert manifests.parsed(command)


def test_a_wrong_flag_would_be_seen(capsys):
    with pytest.raises(SystemExit):
        manifests.parsed("python jobs/restore_bulk.py --source a --destination b --re-drive failed")


@pytest.mark.parametrize("command", [line for line in COMMANDS if not line.startswith("python")])
def test_what_a_command_names_is_there(command):
    words = shlex.split(command.partition("|")[0])
    for before, word in pairwise(words):
        if before == "-k":
            assert (PROJECT / word / "kustomization.yaml").exists(), word
        elif before == "-f" and word.startswith("infra/"):
            assert (PROJECT / word).is_file(), word
    for path in re.findall(r"(?:file://)?(infra/[\w./-]+)", command):
        assert (PROJECT / path).exists(), path
    names = {(found["kind"].lower(), found["metadata"]["name"]) for _, found in manifests.built()}
    for kind, name in re.findall(r"\b(deployment|cronjob)/([\w-]+)", command):
        assert (kind, name) in names
    for name in re.findall(r"rayjob (spair-[\w-]+)", command):
        assert ("rayjob", name) in names


def test_flags_that_are_added_to_the_night_are_its_own():
    (night,) = (found for folder, found in manifests.of_kind("RayJob") if folder.endswith("nightly"))
    added = re.findall(r"\.spec\.entrypoint \+= \"([^\"]+)\"", TEXT)
    assert added
    for flags in [*added, " --redrive failed"]:
        assert manifests.parsed(night["spec"]["entrypoint"] + flags)


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
def test_a_night_by_its_date_is_made_of_the_template():
    (night,) = (found for folder, found in manifests.of_kind("RayJob") if folder.endswith("nightly"))
    (change,) = re.findall(r"jq '([^']+)'", TEXT)
    there = night | {"status": {"jobDeploymentStatus": "Suspended"}}
    there["metadata"] = night["metadata"] | {"uid": "of-the-template", "resourceVersion": "17"}
    done = subprocess.run(["jq", change], input=json.dumps(there), capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)
    manifests.check(made)
    assert made["metadata"].keys() == {"generateName", "labels"}
    assert made["spec"]["suspend"] is False
    assert "status" not in made
    assert manifests.parsed(made["spec"]["entrypoint"]).night == "2026-11-20"


def test_flags_in_the_text_are_flags_of_a_job():
    known = "\n".join(path.read_text() for path in PROJECT.glob("pipelines/**/*.py"))
    known += "\n".join(path.read_text() for path in PROJECT.glob("spair_core/learning/*.py"))
    for flag in re.findall(r"`--([a-z-]+)", TEXT):
        assert re.search(rf"\b{flag.replace('-', '_')}: ", known), flag


def test_images_are_named_as_the_manifests_name_them():
    built = set(re.findall(r"-t ([\w.:-]+)", TEXT))
    used = {
        c["image"]
        for _, found in manifests.built()
        for pod in manifests.pods(found)
        for c in pod["containers"]
    }
    launched = yaml.safe_load((INFRA / "aws" / "cluster.yaml").read_text())["docker"]
    used |= {launched["head_image"], launched["worker_image"]}
    assert {image for image in used if image.startswith("spair")} == built


def test_links_lead_somewhere():
    headings = {
        re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-")
        for h in re.findall(r"^#+ (.*)$", TEXT, re.M)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) <= headings
    for path in re.findall(r"\]\((\.\./[\w/.]+)\)", TEXT):
        assert (INFRA / path).exists()


def test_figures_are_those_that_were_measured():
    measured = (PROJECT / "kernels" / "README.md").read_text()
    for row in (
        "| bfloat16, memory kept | 1.24 | 2.18 | 3.30 |",
        "| float32, memory kept (the same bits) | 1.89 | 3.21 | 4.72 |",
    ):
        assert row in measured
    assert "| `light` | 240 (221) | 114 (72) | 70 (35) |" in measured
    for seconds, hours in ((1.24, 344), (2.18, 606), (3.30, 917), (1.89, 525), (3.21, 892), (4.72, 1311)):
        assert round(1e6 * seconds / 3600) == hours
        assert str(hours) in TEXT
    for rate, hours in ((114, "2.4"), (72, "3.9"), (70, "4.0"), (35, "7.9")):
        assert f"{1e6 / rate / 3600:.1f}" == hours
        assert hours in TEXT
