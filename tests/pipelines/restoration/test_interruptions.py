"""What breaks a run, ends it or kills a part of it: what is done is kept, and the rest goes on."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import ray
import torch
from safetensors.torch import load, save

from pipelines.restoration import ledger, pieces, restore, stream
from pipelines.restoration.manifest import FAILED, IGNORED, PASSED, REJECTED, RESTORED, Manifest
from pipelines.restoration.plan import Selection
from pipelines.services import models, storage
from pipelines.services.faults import TooManyLostError
from pipelines.services.storage import StorageError
from spair_core import images, weights
from spair_core.images import encode_png

PROJECT = Path(__file__).resolve().parents[3]
RestoreConfig = partial(restore.RestoreConfig, actors=1)  # each is a process that loads a model


@pytest.mark.cluster
def test_tensors_of_another_network_end_the_run_with_the_models_name(cluster, footage, mlflow_store, capfd):
    """A whole file with a card: only where the network is built does it show, and that is on the actors."""
    data = storage.read_bytes(f"{footage}/model")
    tensors, card = load(data), weights.read_card(data)
    name = next(iter(tensors))
    other = save(tensors | {name: torch.zeros(3)}, {weights.HEADER_KEY: card.to_json()})
    storage.write_bytes(f"{footage}/other", other)
    config = RestoreConfig(f"{footage}/raw", f"{footage}/dry", model=f"{footage}/other", panels=0)
    with pytest.raises(models.ModelError, match=f"other: the tensors do not fit .*{re.escape(name)}"):
        restore.restore(config)
    assert {item.verdict for item in Manifest(config.destination)} <= {REJECTED, IGNORED}
    assert "Traceback" not in "".join(capfd.readouterr())
    assert restore.restore(replace(config, model=f"{footage}/model")).count(RESTORED) == 3


@pytest.mark.long
@pytest.mark.cluster
def test_a_killed_run_goes_on_where_it_was(cluster, footage, mlflow_store, photos, tmp_path):
    for i in range(24):
        storage.write_bytes(f"{footage}/many/{i:02d}.png", encode_png(photos[i % 4][:200, :300]))
    config = RestoreConfig(f"{footage}/many", f"{footage}/done", model=f"{footage}/model", panels=0, actors=1)
    command = [sys.executable, "jobs/restore_bulk.py", "--source", config.source]
    command += ["--destination", config.destination, "--model", config.model, "--panels", "0"]
    command += ["--actors", str(config.actors)]
    head = ray.get_runtime_context().gcs_address
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "RAY_ADDRESS": head}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 240
            while time.monotonic() < deadline and process.poll() is None:
                if next(iter(Manifest(config.destination)), None) is not None:
                    break
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    journalled = {item.key for item in Manifest(config.destination)}
    assert journalled, (tmp_path / "log").read_text()
    assert len(journalled) < 24
    assert restore.restore(config).already == len(journalled)
    assert [item.verdict for item in Manifest(config.destination)] == [RESTORED] * 24


@pytest.mark.cluster
def test_what_kills_its_process_costs_only_itself(cluster, footage, photos, mlflow_store, monkeypatch):
    for i, name in enumerate(("good", "heavy", "poison")):
        storage.write_bytes(f"{footage}/night/{name}.png", encode_png(photos[i][:40, :60]))
    config = RestoreConfig(f"{footage}/night", f"{footage}/dry", model=f"{footage}/model", panels=0)
    decode = pieces.decode

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def poisoned(item, encoding, quarantine):
        deadly = item["key"] == "poison.png"
        with mock.patch.object(images, "decode", die if deadly else images.decode):
            yield from decode(item, encoding, quarantine)

    class TooHeavy(stream._Restorer):
        def _restored(self, row):
            return die() if row["key"] == "heavy.png" else super()._restored(row)

    with monkeypatch.context() as patched:
        patched.setattr(stream, "decode", poisoned)
        patched.setattr(stream, "_Restorer", TooHeavy)
        summary = restore.restore(config)
    assert summary.count(FAILED) == 2
    outcome = {item.key: (item.verdict, item.reason) for item in Manifest(config.destination)}
    assert outcome.pop("good.png") == (RESTORED, "")
    assert all(verdict == FAILED and "died 2 times" in reason for verdict, reason in outcome.values())
    again = restore.restore(config)
    assert (again.already, again.count(RESTORED)) == (1, 2)


@pytest.mark.cluster
def test_what_nobody_foresaw_costs_only_its_item(cluster, footage, photos, mlflow_store, monkeypatch):
    """An error of a kind that no step expects, in each of the four."""
    for name in ("good", "read", "model", "write"):
        storage.write_bytes(f"{footage}/night/{name}.png", encode_png(photos[0][:40, :60]))
    storage.copy(f"{footage}/raw/cam2/drive.mp4", f"{footage}/night/join.mp4")
    config = RestoreConfig(f"{footage}/night", f"{footage}/dry", model=f"{footage}/model", panels=0)
    decode, encode = pieces.decode, pieces.encode

    def failing(step, name):
        """Raises a KeyError for one item."""
        return mock.patch.object(pieces, step, side_effect=KeyError(name))

    def reading(item, **rest):
        with failing("_at_hand", "read") if item["key"] == "read.png" else nullcontext():
            yield from decode(item, **rest)

    class Restorer(stream._Restorer):
        def _restored(self, row):
            return {}["model"] if row["key"] == "model.png" else super()._restored(row)

    def writing(row, *, work, quarantine):
        with failing("_written", "write") if row["key"] == "write.png" else nullcontext():
            return encode(row, work, quarantine)

    @ray.remote
    def joining(*all_of_it):
        with failing("_joined", "join"):
            return pieces.join._function(*all_of_it)

    with monkeypatch.context() as patched:
        for place, name, bad in (
            (stream, "decode", reading),
            (stream, "_Restorer", Restorer),
            (stream, "encode", writing),
            (restore, "join", joining),
        ):
            patched.setattr(place, name, bad)
        restore.restore(config)
    outcome = {item.key: (item.verdict, item.reason) for item in Manifest(config.destination)}
    assert outcome.pop("good.png") == (RESTORED, "")
    assert len(outcome) == 4
    for key, (verdict, reason) in outcome.items():
        assert verdict == FAILED
        assert f"unforeseen KeyError: '{key.partition('.')[0]}' (" in reason
    again = restore.restore(config)
    assert (again.already, again.count(RESTORED)) == (1, 4)


@pytest.mark.cluster
def test_a_run_that_is_stopped_keeps_what_is_done_and_gives_up_the_rest(
    cluster, footage, photos, mlflow_store, monkeypatch
):
    for i in range(16):
        storage.write_bytes(f"{footage}/many/{i:02d}.png", encode_png(photos[i % 4][:100, :150]))
    config = RestoreConfig(f"{footage}/many", f"{footage}/done", model=f"{footage}/model", panels=1)
    taken, take, decode = [], restore._take, pieces.decode

    def one_after_the_first_verdict(item, encoding, quarantine):
        until = time.monotonic() + 240
        while item["key"] > "02" and not storage.exists(f"{footage}/taken"):
            assert time.monotonic() < until, (
                "what was done first has not been taken while the next was in hand"
            )
            time.sleep(0.1)
        yield from decode(item, encoding, quarantine)

    def stopped_after_two(row, ledger):
        take(row, ledger)
        taken.append(row["key"])
        if len(taken) == 2:
            storage.write_bytes(f"{footage}/taken", b"")
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(restore, "_take", stopped_after_two)
        patched.setattr(stream, "decode", one_after_the_first_verdict)
        with pytest.raises(KeyboardInterrupt):
            restore.restore(config)
    done = {item.key for item in Manifest(config.destination)}
    assert set(taken[:2]) <= done < {f"{i:02d}.png" for i in range(16)}
    there = {item.key for item in storage.list_objects(config.destination) if item.key.endswith(".png")}
    assert {key for key in there if not key.startswith("_spair")} == done  # nothing is done without a verdict
    again = restore.restore(config)
    assert (again.already, again.count(RESTORED)) == (len(done), 16 - len(done))


@pytest.mark.cluster
def test_a_run_stops_by_itself_where_most_items_are_lost(cluster, footage, mlflow_store, monkeypatch):
    for i in range(8):
        storage.write_bytes(f"{footage}/bad/{i}.png", b"no picture")
    monkeypatch.setattr(ledger, "ENOUGH", 5)
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 0)
    config = RestoreConfig(f"{footage}/bad", f"{footage}/none", model=f"{footage}/model", panels=0)
    with pytest.raises(TooManyLostError, match=r"100% of . items could not be restored .*: not a picture"):
        restore.restore(config)
    assert restore.restore(replace(config, max_lost_share=1)).already >= 5
    again = replace(config, selection=Selection(redrive="rejected"))
    assert restore.restore(again).count(REJECTED) == 8  # as many as before, which stops nothing


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 400 KB, and what makes it larger."""
    place = tmp_path / "small"
    place.mkdir()

    def mount(options):
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "spair", str(place)], capture_output=True
        )

    if mount("size=400k").returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place, lambda: mount("remount,size=50m")
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.cluster
@pytest.mark.parametrize("told", [True, False])
def test_a_full_disk_keeps_what_is_done(cluster, footage, mlflow_store, small_disk, monkeypatch, told):
    """And the negative control: where nothing is told of what is done before the end, nothing is kept."""
    disk, enlarge = small_disk
    noise = np.random.default_rng(0).integers(0, 255, (16, 96, 96, 3), dtype=np.uint8)
    for i, picture in enumerate(noise):
        storage.write_bytes(f"{footage}/noise/{i:02d}.png", encode_png(picture))
    config = RestoreConfig(f"{footage}/noise", str(disk / "dry"), model=f"{footage}/model", panels=0)
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "FLUSH_SECONDS", 0 if told else 600)
        if not told:
            patched.setattr(Manifest, "commit", lambda *_: None)
        with pytest.raises(
            StorageError, match=f"^no space left at {disk}.*: free some, or name another place"
        ):
            restore.restore(config)
    assert enlarge().returncode == 0
    again = restore.restore(config)
    assert again.already + again.count(RESTORED) + again.count(PASSED) == 16
    assert (again.already > 0) == told
