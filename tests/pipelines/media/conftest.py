import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def small(photos):
    return photos[0][:32, :48]


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A folder that is all that may be written to beside the target; it must be empty in the end."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "here")
    before = set(tmp_path.rglob("*"))
    yield tmp_path
    added = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path not in before}
    assert added <= {"source", "target"}
    assert not Path("/abs.png").exists()
