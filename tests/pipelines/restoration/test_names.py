"""Names as buckets and folders have them, through the real pipeline."""

import os
from functools import partial

import pytest

from pipelines.restoration import restore
from pipelines.restoration.manifest import IGNORED, REJECTED, RESTORED, Manifest
from pipelines.services import storage
from pipelines.services.storage import StoredObject
from spair_core.images import encode_png

RestoreConfig = partial(restore.RestoreConfig, actors=1)  # each is a process that loads a model

LISTED = """a b.png|trailing .png|CAPS.PNG|é.png|e\u0301.png|雨/☔.png|x%20y.png|%2e%2e/x.png|q?x=1&y.png
h#1.png|plus+.png|col:on.png|v@2.png|back\\.png|quote'".png|$(x)`.png|<b>.png|[a]*.png|{a}.png|~a.png|-a.png
_a.png|...png|.a.png|a..b/c..png|day=1/a.png|dir.png/a.png|zip.zip/a.png|models:/a.png"""
NAMES = [*LISTED.replace("\n", "|").split("|"), "tab\t.png", "line\nbreak.png", f"{200 * 'n'}.png"]


@pytest.mark.cluster
@pytest.mark.parametrize("place", ["store", "folder"])
def test_any_name_will_do(cluster, footage, mlflow_store, photos, tmp_path, place):
    root = f"{footage}/names" if place == "store" else str(tmp_path)
    for number, name in enumerate(NAMES):
        storage.write_bytes(f"{root}/raw/{name}", encode_png(photos[number % 4][:40, :60]))
    config = RestoreConfig(f"{root}/raw", f"{root}/dry", model=f"{footage}/model", panels=1)
    restore.restore(config)
    assert {item.key: item.verdict for item in Manifest(config.destination)} == dict.fromkeys(NAMES, RESTORED)
    written = {item.key for item in storage.list_objects(config.destination)}
    assert {key for key in written if not key.startswith("_spair/")} == set(NAMES)
    assert restore.restore(config).already == len(NAMES)


@pytest.mark.long
def test_a_link_to_a_folder_is_not_followed_and_told_as_such(tmp_path, mlflow_store, tiny_weights):
    (tmp_path / "model").write_bytes(tiny_weights)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "more").symlink_to(tmp_path)
    config = RestoreConfig(f"{tmp_path}/raw", f"{tmp_path}/dry", model=f"{tmp_path}/model", panels=0)
    restore.restore(config)
    ((key, verdict, reason),) = [(one.key, one.verdict, one.reason) for one in Manifest(config.destination)]
    assert (key, verdict) == ("more", IGNORED)
    assert "a folder (or a link to one)" in reason


@pytest.mark.long
def test_names_that_lead_out_of_a_folder_are_rejected_before_any_work(
    s3, tmp_path, monkeypatch, mlflow_store, tiny_weights
):
    """A bucket's names may hold anything; in a folder one is another's, or lies outside."""
    (tmp_path / "model").write_bytes(tiny_weights)
    keys = ["../out.png", "/a.png", "./a.png", "a//b.png", "x/../a.png", "x/../notes.txt"]
    listed = storage.list_objects

    def bucket(uri):
        if uri != f"{s3}/raw":
            yield from listed(uri)
            return
        yield from (StoredObject(f"{uri}/{key}", key, 9, "mark", None) for key in sorted(keys))

    monkeypatch.setattr(storage, "list_objects", bucket)
    config = RestoreConfig(f"{s3}/raw", f"{tmp_path}/below/dry", model=f"{tmp_path}/model", panels=0)
    assert restore.forecast(config).ignored == len(keys)
    restore.restore(config)
    found = {item.key: item for item in Manifest(config.destination)}
    assert {key: item.verdict for key, item in found.items()} == {
        **dict.fromkeys(keys, REJECTED),
        "x/../notes.txt": IGNORED,
    }
    assert "a folder cannot keep its name" in found["../out.png"].reason
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["dry"]


@pytest.mark.long
def test_names_of_any_bytes_are_rejected_and_the_rest_goes_on(tmp_path, mlflow_store, tiny_weights):
    (tmp_path / "model").write_bytes(tiny_weights)
    (tmp_path / "raw").mkdir()
    for name in (b"caf\xe9.png", b"caf\xe9.txt", b"notes.txt"):
        with open(os.path.join(os.fsencode(tmp_path / "raw"), name), "wb") as file:
            file.write(b"x")
    config = RestoreConfig(f"{tmp_path}/raw", f"{tmp_path}/dry", model=f"{tmp_path}/model", panels=0)
    restore.restore(config)
    found = {item.key: (item.verdict, item.reason) for item in Manifest(config.destination)}
    assert found["caf\\udce9.png"] == (REJECTED, "its name is not UTF-8: rename it")
    assert {found[key][0] for key in ("caf\\udce9.txt", "notes.txt")} == {IGNORED}
    assert restore.restore(config).already == 1


def test_a_destination_that_links_to_the_source_is_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "dry").symlink_to(tmp_path / "raw")
    with pytest.raises(ValueError, match="overlap"):
        restore.restore(RestoreConfig(f"{tmp_path}/raw", f"{tmp_path}/dry"))
