from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.restoration import manifest, restore
from pipelines.restoration.manifest import FAILED, REJECTED, RESTORED, Manifest, Verdict
from pipelines.services import storage
from pipelines.services.storage import StorageError


def verdict(key, outcome=RESTORED, **values):
    return Verdict(key, "picture", outcome, source_identity="e1", model_digest="m1", options="o1", **values)


def test_verdicts_of_a_broken_run_are_recovered(s3):
    book = Manifest(s3)
    book.add(verdict("a"))
    book.flush()
    book.add(verdict("b"))  # lost with the process
    again = Manifest(s3)
    assert again.recovered == 1
    assert again.get("a") == verdict("a")
    assert again.get("b") is None


def test_a_commit_keeps_one_row_a_key_and_no_parts(s3):
    first = Manifest(s3)
    first.add(verdict("b"))
    first.add(verdict("a", FAILED, reason="the network"))
    first.commit()
    second = Manifest(s3)
    second.add(verdict("a", degraded_share=0.25))
    second.commit()
    final = Manifest(s3)
    assert [item.key for item in final] == ["a", "b"]
    assert final.get("a") == verdict("a", degraded_share=0.25)
    assert final.recovered == 0
    left = [item.key for item in storage.list_objects(s3)]
    assert left[0] == "_spair/manifest.json"
    assert final.part_uris()[0] in {f"{s3}/{key}" for key in left}
    assert len(left) == 3  # and what a reader of the index before may still want


def test_what_settles_an_item():
    assert verdict("a").settles("e1", "m1", "o1")
    assert verdict("a", REJECTED).settles("e1", "m1", "o1")
    assert not verdict("a", FAILED).settles("e1", "m1", "o1")
    for changed in (("e2", "m1", "o1"), ("e1", "m2", "o1"), ("e1", "m1", "o2")):
        assert not verdict("a").settles(*changed)


def rows_of(book):
    return {uri: len(pq.read_table(pa.BufferReader(storage.read_bytes(uri)))) for uri in book.part_uris()}


def test_only_the_parts_that_change_are_written_again(s3, monkeypatch):
    monkeypatch.setattr(manifest, "PART_ROWS", 3)
    book = Manifest(s3)
    for key in "bdfhjlnpr":
        book.add(verdict(key))
    book.commit()
    first = rows_of(book)
    assert list(first.values()) == [3, 3, 3]
    assert book.counts() == {RESTORED: 9}

    book.add(verdict("a"))
    book.add(verdict("d", FAILED))
    book.drop("r")
    book.commit()
    second = rows_of(Manifest(s3))
    assert list(second.values()) == [3, 1, 3, 2]
    assert set(first) & set(second) == {list(first)[1]}
    assert [item.key for item in Manifest(s3)] == list("abdfhjlnp")
    assert Manifest(s3).counts() == {RESTORED: 8, FAILED: 1}
    for key in "abhpr":
        found = Manifest(s3).get(key)
        assert found == (None if key == "r" else verdict(key))
    # A reader of the index before still finds its parts; the commit after removes them.
    assert rows_of(Manifest(s3)).keys() < {item.uri for item in storage.list_objects(s3)}
    assert all(storage.exists(uri) for uri in first)
    book.add(verdict("z"))
    book.commit()
    assert not storage.exists(next(iter(first)))


def test_a_manifest_is_read_as_a_table(tmp_path):
    book = Manifest(str(tmp_path))
    for key in ("b", "a"):
        book.add(verdict(key))
    book.commit()
    assert pq.read_table(tmp_path / "_spair" / "manifest").column("key").to_pylist() == ["a", "b"]


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / manifest.FOLDER).mkdir()
    (tmp_path / manifest.FOLDER / "manifest.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises(StorageError, match=r"manifest.parquet: is damaged"):
        list(Manifest(str(tmp_path)))
    (tmp_path / manifest.FOLDER / "manifest.json").write_bytes(b'{"version": 1}')
    with pytest.raises(StorageError, match=r"manifest.json: is damaged"):
        Manifest(str(tmp_path))


def test_what_is_pruned_lies_at_the_destination_whatever_a_manifest_says(tmp_path):
    source, destination, mine = tmp_path / "raw", tmp_path / "dry", tmp_path / "mine.png"
    source.mkdir()
    for path in (mine, destination / "gone.png"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"picture")
    book = Manifest(str(destination))
    for key in ("gone.png", "../mine.png"):
        book.add(verdict(key, source_uri=f"{source}/{key}", output_uri=str(mine)))
    book.commit()
    ledger = SimpleNamespace(book=book, summary=SimpleNamespace(pruned=0))
    restore._prune(restore.RestoreConfig(str(source), str(destination)), ledger)
    assert ledger.summary.pruned == 2
    assert (mine.exists(), (destination / "gone.png").exists()) == (True, False)


def test_what_was_being_journalled_when_its_process_was_killed_is_passed_over(tmp_path):
    book = Manifest(str(tmp_path))
    book.add(verdict("a"))
    book.flush()
    (tmp_path / "_spair" / "journal" / ".writing-abc").write_bytes(b"")
    again = Manifest(str(tmp_path))
    assert (again.recovered, again.get("a")) == (1, verdict("a"))
    again.commit()
    assert not (tmp_path / "_spair" / "journal").exists()
