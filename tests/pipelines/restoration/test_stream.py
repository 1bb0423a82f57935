"""How a stream ends; what its rows say is tested through whole restorations."""

import pyarrow as pa
import pytest
import ray

from pipelines.restoration import stream
from pipelines.restoration.stream import Stream


class Broken:
    """Rows that break off."""

    def __init__(self, error):
        self.error = error

    def iter_batches(self, **_):
        yield pa.table({"key": ["a.png"]})
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ray.exceptions.RayError("no node is left"), RuntimeError, "the stream broke: no node is left"),
        (AssertionError("of the library's own"), AssertionError, "of the library's own"),
    ],
    ids=["of the cluster", "another"],
)
def test_what_breaks_it_is_raised_where_the_rows_are_taken(monkeypatch, error, kind, words):
    monkeypatch.setattr(stream, "Quarantine", lambda seconds: None)
    monkeypatch.setattr(stream, "_results", lambda *_: Broken(error))

    class Work:
        piece_seconds = 1.0

    rows = Stream(Work(), []).rows(seconds=20)
    assert next(rows) == {"key": "a.png"}
    with pytest.raises(kind, match=words):
        next(rows)
