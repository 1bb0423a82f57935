import pytest

from pipelines.benchmark import scale
from pipelines.benchmark.scale import ScaleConfig
from pipelines.restoration.manifest import Manifest


@pytest.mark.cluster
def test_every_item_is_planned_committed_and_settled(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "TASKS", 3)
    monkeypatch.setattr(scale, "RUNS", 2)
    monkeypatch.setattr(scale, "WINDOW", 40)
    monkeypatch.setattr(scale, "JOURNALLED", 7)
    rows = scale.measure(ScaleConfig(items=100, destination=str(tmp_path)))
    assert all(row["figure"] > 0 for row in rows)
    assert [row["unit"] for row in rows] == ["s", "s", "s", "MB", "items/s", "runs/s"]
    assert sum(Manifest(str(tmp_path)).counts().values()) == 100
