"""Processes that die after any step of the write order: what was told is kept, nothing is half there."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import ray

from pipelines.restoration import manifest, pieces, restore, stream
from pipelines.restoration.manifest import FAILED, RESTORED, Manifest, Verdict
from pipelines.restoration.restore import RestoreConfig
from pipelines.services import storage
from spair_core.images import encode_png
from tests.pipelines.media.test_clips import make_clip


class DiedError(BaseException):
    """As a process does: nothing that would clean up is run after it."""


class Store:
    """The store, whose client dies after so many changes of it; folders go object by object."""

    def __init__(self, patched, until=None):
        self.changes, self.until = 0, until
        self.write, self.delete = storage.write_bytes, storage.delete
        patched.setattr(storage, "write_bytes", self._written)
        patched.setattr(storage, "delete", self._deleted)
        patched.setattr(storage, "delete_below", self._deleted_below)

    def _written(self, uri, data):
        self.write(uri, data)
        self._changed()

    def _deleted(self, uri):
        self.delete(uri)
        self._changed()

    def _deleted_below(self, uri):
        for item in list(storage.list_objects(uri)) if storage.exists(uri) else []:
            self._deleted(item.uri)

    def _changed(self):
        self.changes += 1
        if self.changes == self.until:
            raise DiedError


def verdict(key, night, outcome=RESTORED):
    return Verdict(key, "picture", outcome, model_digest="m", options=night)


def work(destination, flushed):
    """A run on a destination: takes verdicts down, and notes those of which it knows that they are kept."""
    book = Manifest(destination)
    for keys in (("a", "c", "n"), ("o", "z")):
        taken = [verdict(key, "second") for key in keys]
        for one in taken:
            book.add(one)
        book.flush()
        flushed |= {one.key: one for one in taken}
    book.commit()


def found_after(destination, monkeypatch, until):
    """What a run that died after so many changes leaves behind: what it told, what is kept, and the store."""
    flushed = {}
    with monkeypatch.context() as patched:
        store = Store(patched, until)
        try:
            work(str(destination), flushed)
        except DiedError:
            pass
        else:
            return store.changes, None
    return store.changes, flushed


def check(destination, flushed, first):
    """Nothing that was told is lost, what readers follow is whole, and the next commit leaves no rest."""
    index = json.loads((destination / "_spair" / "manifest.json").read_text())
    for part in index["parts"]:  # what a reader sees meanwhile
        verdicts = Counter(one.verdict for one in manifest._read(str(destination / "_spair" / part["file"])))
        assert verdicts == part["verdicts"]
    book = Manifest(str(destination))
    kept = {one.key: one for one in book}
    assert kept.items() >= (first | flushed).items()
    book.commit()
    again = Manifest(str(destination))
    assert {one.key: one for one in again} == kept
    assert again.recovered == 0


@pytest.fixture
def nights(tmp_path):
    """Makes destinations in which a first night was committed, in several parts."""
    first = {key: verdict(key, "first", FAILED if key == "c" else RESTORED) for key in "bcdmnpq"}

    def made(number):
        destination = tmp_path / f"{number}"
        book = Manifest(str(destination))
        for one in first.values():
            book.add(one)
        book.commit()
        return destination

    return made, first


def test_a_driver_that_dies_after_any_step_loses_nothing_that_it_told(nights, monkeypatch):
    monkeypatch.setattr(manifest, "PART_ROWS", 3)
    made, first = nights
    steps, flushed = found_after(made("whole"), monkeypatch, None)
    assert flushed is None
    assert steps >= 8  # two journals, parts, the index, and what is removed
    for number in range(1, steps + 1):
        destination = made(number)
        _, flushed = found_after(destination, monkeypatch, number)
        check(destination, flushed, {key: one for key, one in first.items() if key not in {"c", "n"}})


def test_in_another_order_it_would(nights, monkeypatch):
    """The negative control: what was journalled is removed before the index tells of it."""
    monkeypatch.setattr(manifest, "PART_ROWS", 3)
    made, _ = nights
    write = Manifest._written

    def too_early(self, verdicts):
        storage.delete_below(self._journal)
        yield from write(self, verdicts)

    monkeypatch.setattr(Manifest, "_written", too_early)
    steps, _ = found_after(made("whole"), monkeypatch, None)
    lost = 0
    for number in range(1, steps + 1):
        destination = made(number)
        _, flushed = found_after(destination, monkeypatch, number)
        try:
            check(destination, flushed, {})
        except AssertionError:
            lost += 1
    assert lost


def dying(work, deaths, name):
    """The same, but its process dies once for each item when its work is done and not yet told."""

    def dies(first, *rest):
        outcome = work(first, *rest)
        row = rest[0] if isinstance(first, pieces.Work) else first
        mark = Path(deaths) / f"{name} {row['key']} {row.get('part', '')}"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    return dies


@pytest.mark.long
@pytest.mark.cluster
def test_a_worker_that_dies_after_it_wrote_costs_nothing(
    cluster, s3, photos, tiny_weights, mlflow_store, tmp_path, monkeypatch
):
    """And the negative control: without another try, what it did is not known to be done."""
    clip = make_clip(tmp_path / "drive.mp4", [photos[0][:48, k : k + 64] for k in range(40)])
    storage.write_bytes(f"{s3}/raw/drive.mp4", clip.read_bytes())
    storage.write_bytes(f"{s3}/raw/still.png", encode_png(photos[1][:40, :60]))
    storage.write_bytes(f"{s3}/model", tiny_weights)
    (tmp_path / "deaths").mkdir()
    encode, join = (
        dying(one, str(tmp_path / "deaths"), name)
        for one, name in ((pieces.encode, "encode"), (pieces.join._function, "join"))
    )
    monkeypatch.setattr(stream, "encode", lambda row, work, quarantine: encode(row, work, quarantine))
    config = RestoreConfig(f"{s3}/raw", f"{s3}/dry", model=f"{s3}/model", panels=0, actors=1)

    monkeypatch.setattr(restore, "join", ray.remote(num_cpus=0.5, max_retries=0)(join))
    summary = restore.restore(config)
    assert (summary.count(RESTORED), summary.count(FAILED)) == (1, 1)
    assert "could not be joined" in Manifest(f"{s3}/dry").get("drive.mp4").reason

    for mark in (tmp_path / "deaths").iterdir():
        mark.unlink()
    monkeypatch.setattr(restore, "join", ray.remote(num_cpus=0.5, max_retries=2)(join))
    summary = restore.restore(config)
    assert (summary.already, summary.count(RESTORED)) == (1, 1)
    deaths = {mark.name.split()[0] for mark in (tmp_path / "deaths").iterdir()}
    assert deaths == {"encode", "join"}
    done = Manifest(f"{s3}/dry").get("drive.mp4")
    assert (done.verdict, done.frames) == (RESTORED, 40)
    left = {item.key.split("/")[0] for item in storage.list_objects(f"{s3}/dry/_spair")}
    assert left == {"manifest.json", "manifest"}
