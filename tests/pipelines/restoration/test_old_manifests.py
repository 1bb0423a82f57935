"""Manifests as version 0.1.0 wrote them: what they settle stays settled."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.restoration.manifest import FAILED, REJECTED, RESTORED, Manifest, Verdict
from pipelines.services import storage

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("kind", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("source_uri", pa.string()),
        ("source_identity", pa.string()),
        ("source_digest", pa.string()),
        ("output_uri", pa.string()),
        ("output_digest", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("frames", pa.int64()),
        ("degraded_share", pa.float64()),
        ("model_seconds", pa.float64()),
        ("model_digest", pa.string()),
        ("options", pa.string()),
        ("finished_at", pa.string()),
    ]
)
"""Every column there was; what a later version adds is not added here."""
OPTIONS = "tile=1024 quality=95 crf=18 preset=veryfast"
SETTLED = ("4f2a-1", "c0ffee", OPTIONS)


def old_row(key, verdict, reason=""):
    return {
        "key": key,
        "kind": "picture",
        "verdict": verdict,
        "reason": reason,
        "source_uri": f"s3://raw/{key}",
        "source_identity": "4f2a-1",
        "source_digest": "ab" * 32,
        "output_uri": f"s3://dry/{key}" if verdict == RESTORED else "",
        "output_digest": "cd" * 32 if verdict == RESTORED else "",
        "width": 60,
        "height": 40,
        "frames": 1,
        "degraded_share": 0.25,
        "model_seconds": 1.5,
        "model_digest": "c0ffee",
        "options": OPTIONS,
        "finished_at": "2026-11-20T03:04:05+00:00",
    }


def write(uri, rows):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink)
    storage.write_bytes(uri, sink.getvalue())


@pytest.fixture
def destination(s3):
    rows = [
        old_row("a.png", RESTORED),
        old_row("b.png", REJECTED, "the file is empty"),
        old_row("c.png", FAILED, "the model could not restore it"),
    ]
    write(f"{s3}/_spair/manifest.parquet", rows)
    return s3


def test_an_old_manifest_is_read_and_settles_its_items(destination):
    book = Manifest(destination)
    restored = book.get("a.png")
    old = old_row("a.png", RESTORED)
    assert {name: getattr(restored, name) for name in SCHEMA.names} == old
    assert [(item.key, item.settles(*SETTLED)) for item in book] == [
        ("a.png", True),
        ("b.png", True),
        ("c.png", False),
    ]
    assert not restored.settles("4f2a-2", *SETTLED[1:])
    assert book.recovered == 0


def test_a_journal_beside_an_old_manifest_adds_to_it(destination):
    """One part that the old version left when it was killed, and one that this version wrote."""
    left = [old_row("c.png", RESTORED), old_row("d.png", RESTORED)]
    write(f"{destination}/_spair/journal/2026-11-20T030405+0000-0.parquet", left)
    late = Verdict(
        "e.png", "picture", RESTORED, source_identity="4f2a-1", model_digest="c0ffee", options=OPTIONS
    )
    book = Manifest(destination)
    book.add(late)
    book.flush()
    again = Manifest(destination)
    assert (book.recovered, again.recovered) == (1, 2)
    again.commit()
    committed = Manifest(destination)
    assert [item.key for item in committed] == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert all(item.settles(*SETTLED) for item in committed)
    assert committed.get("e.png") == late
    assert committed.get("a.png") == book.get("a.png")
    assert committed.recovered == 0
