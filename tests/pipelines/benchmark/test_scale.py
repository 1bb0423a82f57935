from pipelines.benchmark import scale
from pipelines.benchmark.scale import ScaleConfig
from pipelines.restoration.manifest import Manifest


def test_every_item_is_planned_committed_and_settled(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "WINDOW", 40)
    monkeypatch.setattr(scale, "JOURNALLED", 7)
    rows = scale.measure(ScaleConfig(items=100, destination=str(tmp_path)))
    assert all(row["figure"] > 0 for row in rows)
    assert [row["unit"] for row in rows] == ["s", "s", "s", "MB"]
    assert sum(Manifest(str(tmp_path)).counts().values()) == 100
