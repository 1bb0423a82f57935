import pytest

from pipelines.restoration import manifest
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
    assert [item.key for item in storage.list_objects(s3)] == ["_spair/manifest.parquet"]


def test_what_settles_an_item():
    assert verdict("a").settles("e1", "m1", "o1")
    assert verdict("a", REJECTED).settles("e1", "m1", "o1")
    assert not verdict("a", FAILED).settles("e1", "m1", "o1")
    for changed in (("e2", "m1", "o1"), ("e1", "m2", "o1"), ("e1", "m1", "o2")):
        assert not verdict("a").settles(*changed)


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / manifest.FOLDER).mkdir()
    (tmp_path / manifest.FOLDER / "manifest.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises(StorageError, match=r"manifest.parquet: is damaged"):
        Manifest(str(tmp_path))
