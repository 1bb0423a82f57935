"""Alerts and dashboard: every metric in them is one that SPAIR, Ray or Kubernetes exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import yaml

from tests.infra.manifests import INFRA, PROJECT

RULES = yaml.safe_load((INFRA / "monitoring" / "rules.yaml").read_text())
DASHBOARD = json.loads((INFRA / "monitoring" / "dashboard.json").read_text())
RUNBOOK = (INFRA / "README.md").read_text()
RECORDED = {
    rule["record"] for group in RULES["spec"]["groups"] for rule in group["rules"] if "record" in rule
}
ALERTS = [rule for group in RULES["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
OF_OTHERS = {
    # kube-state-metrics, docs/metrics/workload
    "kube_job_failed",
    "kube_job_status_active",
    "kube_job_status_start_time",
    "kube_cronjob_status_last_successful_time",
    # KubeRay's operator since 1.4, "KubeRay metrics references" in Ray's documentation
    "kuberay_job_deployment_status",
}
METRIC = re.compile(r"\b(?:ray|kube|kuberay)_[a-z0-9_]+(?=[{\[ )]|$)|\bspair:[\w:]+")


def expressions() -> Iterator[str]:
    for group in RULES["spec"]["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def of_spair() -> set[str]:
    """The counters of the code, as Ray hands them on: with its own prefix."""
    made = re.compile(r"(?:Counted|Counter|Gauge|Histogram)\(\s*\"(spair_\w+)\"")
    sources = (PROJECT / "pipelines").rglob("*.py")
    return {f"ray_{name}" for path in sources for name in made.findall(path.read_text())}


def of_ray() -> set[str]:
    """What the installed Ray's reporter measures, and what its own dashboards read."""
    dashboard = Path(ray.__file__).parent / "dashboard" / "modules"
    measured = re.findall(
        r"\"(node_\w+)\": Gauge\(", (dashboard / "reporter" / "reporter_agent.py").read_text()
    )
    panels = "\n".join(path.read_text() for path in (dashboard / "metrics" / "dashboards").glob("*.py"))
    return {f"ray_{name}" for name in measured} | set(re.findall(r"\bray_[a-z0-9_]+", panels))


def test_the_counters_of_the_code_are_found():
    assert {"ray_spair_items_total", "ray_spair_frames_total"} <= of_spair()


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_is_one_that_is_exported(expression):
    names = set(METRIC.findall(re.sub(r"\b(?:by|without|on) \([^)]*\)|\"[^\"]*\"", "", expression)))
    assert names
    assert names <= of_spair() | of_ray() | OF_OTHERS | RECORDED


def test_verdicts_in_rules_are_verdicts():
    from pipelines.restoration.manifest import VERDICTS

    asked = {
        word
        for text in expressions()
        for words in re.findall(r'verdict!?=~?"([^"]+)"', text)
        for word in words.split("|")
    }
    assert asked
    assert asked <= set(VERDICTS)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_is_wrong_and_where_it_stands_what_to_do(alert):
    assert set(alert) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[mh]", alert.get("for", "0m"))
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert alert["annotations"]["summary"]
    path, _, place = alert["annotations"]["runbook"].partition("#")
    assert (PROJECT / path).exists()
    headings = re.findall(r"^#+ .*$", RUNBOOK, flags=re.MULTILINE)
    assert any(place in re.sub(r"[^\w ]", "", heading).lower().split() for heading in headings), place


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus is not installed")
def test_alerts_fire_when_they_should_and_not_before(tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES["spec"]))
    tests = yaml.safe_load(Path(__file__).with_name("alerts.yaml").read_text())
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests | {"rule_files": ["rules.yaml"]}))
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_but_those_of_single_counters_is_tried():
    tests = yaml.safe_load(Path(__file__).with_name("alerts.yaml").read_text())["tests"]
    tried = {rule["alertname"] for one in tests for rule in one["alert_rule_test"]}
    assert {alert["alert"] for alert in ALERTS} - tried <= {"SpairWorkersDie"}


def test_there_are_alerts_for_what_goes_wrong_in_a_night():
    text = " ".join(alert["alert"] for alert in ALERTS)
    for word in ("ItemsLost", "NoProgress", "JobFailed", "LeaseHeldLong", "OutOfMemory"):
        assert word in text


def test_what_prometheus_reads_is_what_nodes_offer():
    monitor = yaml.safe_load((INFRA / "monitoring" / "podmonitor.yaml").read_text())
    job = yaml.safe_load((INFRA / "kuberay" / "base" / "rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for group in (job["headGroupSpec"], *job["workerGroupSpecs"]):
        template = group["template"]
        assert endpoint["port"] in {port["name"] for port in template["spec"]["containers"][0]["ports"]}
        for wanted in monitor["spec"]["selector"]["matchExpressions"]:
            assert template["metadata"]["labels"][wanted["key"]] in wanted["values"]


def test_panels_do_not_lie_on_one_another():
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
