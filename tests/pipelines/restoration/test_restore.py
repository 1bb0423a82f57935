"""A bucket of pictures and clips, whole and broken ones, through the real pipeline."""

import os
import tarfile
from dataclasses import replace
from functools import partial

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.judging import promotion
from pipelines.media import EncodeConfig, Encoding, Piece, clips, packed, tables, unpacked
from pipelines.restoration import pieces, restore, stream
from pipelines.restoration.manifest import FAILED, IGNORED, PASSED, REJECTED, RESTORED, Manifest, Verdict
from pipelines.restoration.pieces import Work
from pipelines.services import models, storage, tracking
from pipelines.services.quarantine import Quarantine
from spair_core import images, inference, weights
from spair_core.footage import Reach, Window, windows
from spair_core.images import encode_png
from spair_core.inference import precision
from spair_core.network import Spair, lowered
from tests.pipelines.media.samples import make_archive, make_table
from tests.pipelines.media.test_clips import make_clip, sound, times

RestoreConfig = partial(restore.RestoreConfig, actors=1)  # each is a process that loads a model


def work(model, **values):
    """For actors alone."""
    known = {"precision": "float32", "tile": 1024, "min_degraded": 0.001}
    known |= {"encoding": Encoding(), "actors": 1, "num_gpus": 0.0, "piece_seconds": 60.0}
    return Work("/nowhere", model, **{**known, **values})


@pytest.mark.cluster
def test_everything_gets_a_verdict_and_nothing_is_done_twice(
    cluster, footage, mlflow_store, tmp_path, monkeypatch
):
    config = RestoreConfig(
        f"{footage}/raw", f"{footage}/dry", model=f"{footage}/model", panels=2, actors="auto"
    )
    summary = restore.restore(config)
    book = Manifest(f"{footage}/dry")
    assert {item.key: item.verdict for item in book} == {
        "cam1/a.png": RESTORED,
        "cam1/b.png": RESTORED,
        "cam2/drive.mp4": RESTORED,
        "cam2/cut.mp4": REJECTED,
        "broken.jpg": REJECTED,
        "empty.png": REJECTED,
        "notes.txt": IGNORED,
    }
    assert "the file is empty" in str(summary)
    assert images.decode(storage.read_bytes(f"{footage}/dry/cam1/b.png")).pixels.shape == (33, 21, 3)

    for name in ("raw", "dry"):
        storage.download(f"{footage}/{name}/cam2/drive.mp4", tmp_path / f"{name}.mp4")
    assert times(tmp_path / "dry.mp4") == times(tmp_path / "raw.mp4")
    assert sound(tmp_path / "dry.mp4") == sound(tmp_path / "raw.mp4")

    clip = book.get("cam2/drive.mp4")
    assert (clip.frames, clip.width, clip.height) == (40, 64, 48)
    assert len(clip.source_digest) == len(clip.output_digest) == 64
    left = [item.key for item in storage.list_objects(f"{footage}/dry/_spair")]
    assert [key.split("/")[0] for key in left] == ["manifest.json", "manifest", "panels", "panels"]

    client = mlflow.MlflowClient(mlflow_store)
    (experiment,) = client.search_experiments(filter_string="name = 'spair-restoration'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["restored"] == 3
    decided = restore._decided(config)
    assert run.data.params["precision"] == decided.precision != "auto"
    assert {item.options for item in book if item.verdict == RESTORED} == {decided.options}
    assert len(client.list_artifacts(run.info.run_id, "panels")) == 2

    def no_model_work(*_):
        raise AssertionError("nothing was left to do")

    monkeypatch.setattr(restore, "Stream", no_model_work)
    again = restore.restore(config)
    assert again.already == 6
    assert again.count(RESTORED) == 0

    other = {"float32": "bfloat16", "bfloat16": "float32"}[decided.precision]
    with pytest.raises(AssertionError, match="nothing was left"):
        restore.restore(replace(config, precision=other))


@pytest.mark.long
@pytest.mark.cluster
@pytest.mark.parametrize(("kind", "references"), [("float32", True), ("bfloat16", True), ("float32", False)])
def test_a_clip_gives_the_same_frames_in_runs_as_whole(
    cluster, tiny_config, photos, tmp_path, kind, references
):
    """Each agrees with the frames beside it, also by a network that sees each alone."""
    torch.manual_seed(0)
    card = weights.ModelCard(replace(tiny_config, references=references), "rain", 0.05)
    data = weights.save(Spair(card.network), card)
    frames = [np.roll(photos[0][:48, :64], 2 * k, axis=1) for k in range(44)]
    clip = make_clip(tmp_path / "clip.mp4", frames)
    item = {"key": "clip.mp4", "uri": str(clip), "kind": "clip", "panel": False, "known_digest": ""}
    item["size"] = clip.stat().st_size
    quarantine = Quarantine()
    rows = list(pieces.decode(item, Encoding(), quarantine))
    actor = stream._Restorer(work(data, precision=kind), quarantine)
    restored = np.concatenate([unpacked(actor.restored(row)).window.pixels for row in rows])

    shown = [
        pair
        for piece in clips.read(clip, None)
        for pair in zip(piece.window.pixels, piece.seconds, strict=True)
    ]
    (whole,) = windows(iter(shown), 1000, Reach())
    model = lowered(weights.load(data)[0], getattr(torch, kind))
    expected = inference.restore_window(model, whole).pixels
    assert [row["last"] for row in rows] == [False, True]
    assert restored.shape == (44, 48, 64, 3)
    assert (restored == expected).all()
    assert (restored != inference.restore(model, whole.pixels).pixels).any()


@pytest.mark.cluster
def test_what_needs_nothing_is_copied_byte_for_byte(
    cluster, footage, photos, tiny_config, mlflow_store, tmp_path
):
    """By a model that finds nothing anywhere. A table gets its column all the same."""
    source = make_table(tmp_path / "t.parquet", [encode_png(photos[0][:40, :60]), None])
    storage.write_bytes(f"{footage}/raw/t.parquet", source.read_bytes())
    card = weights.ModelCard(replace(tiny_config, binarize=1.0), "rain", 0.05)
    storage.write_bytes(f"{footage}/blind", weights.save(Spair(card.network), card))
    config = RestoreConfig(f"{footage}/raw", f"{footage}/dry", model=f"{footage}/blind", panels=0)
    summary = restore.restore(config)
    passed = [item for item in Manifest(f"{footage}/dry") if item.verdict == PASSED]
    assert {item.key for item in passed} == {"cam1/a.png", "cam1/b.png", "cam2/drive.mp4"}
    for item in passed:
        assert storage.read_bytes(item.output_uri) == storage.read_bytes(item.source_uri)
        assert item.output_digest == item.source_digest == weights.digest(storage.read_bytes(item.output_uri))
    assert summary.count(REJECTED) == 3
    table = Manifest(f"{footage}/dry").get("t.parquet")
    assert (table.verdict, table.degraded_share, table.notes) == (RESTORED, 0, tables.UNCHANGED)
    written = storage.read_bytes(table.output_uri)
    assert table.output_digest == weights.digest(written)
    grown = pq.read_table(pa.BufferReader(written))
    assert grown["restored"].equals(grown["image"])
    assert restore.restore(config).already == 7


@pytest.mark.cluster
def test_archives_and_tables_are_items_like_others(cluster, footage, photos, mlflow_store, tmp_path):
    picture, broken = encode_png(photos[0][:40, :60]), encode_png(photos[0][:40, :60])[:500]
    make_archive(tmp_path / "a.tar.gz", {"1.png": picture, "note.txt": b"text", "2.png": broken})
    make_archive(tmp_path / "text.zip", {"note.txt": b"text"})
    make_archive(tmp_path / "evil.zip", {"../1.png": picture})
    make_table(tmp_path / "t.parquet", [picture, None])
    for name in ("a.tar.gz", "text.zip", "evil.zip", "t.parquet"):
        storage.write_bytes(f"{footage}/packed/{name}", (tmp_path / name).read_bytes())
    storage.write_bytes(f"{footage}/packed/_spair/manifest.parquet", (tmp_path / "t.parquet").read_bytes())
    config = RestoreConfig(f"{footage}/packed", f"{footage}/dry", model=f"{footage}/model", panels=0)
    restore.restore(config)
    book = list(Manifest(config.destination))
    assert {item.key: (item.kind, item.verdict) for item in book} == {
        "_spair/manifest.parquet": ("other", IGNORED),
        "a.tar.gz": ("archive", RESTORED),
        "evil.zip": ("archive", REJECTED),
        "t.parquet": ("table", RESTORED),
        "text.zip": ("archive", PASSED),
    }
    notes = {item.key: item.notes for item in book if item.notes}
    assert notes.pop("text.zip") == "it holds no pictures or clips"
    assert notes.pop("a.tar.gz").startswith("2.png: copied as it was: ")
    assert notes == {}
    assert storage.read_bytes(f"{footage}/dry/text.zip") == (tmp_path / "text.zip").read_bytes()
    storage.download(f"{footage}/dry/a.tar.gz", tmp_path / "dry.tar.gz")
    with tarfile.open(tmp_path / "dry.tar.gz") as archive:
        first, *others = [archive.extractfile(info).read() for info in archive]
    assert others == [b"text", broken]
    assert (images.decode(first).pixels != photos[0][:40, :60]).any()
    assert restore.restore(config).already == 4


@pytest.mark.cluster
def test_a_model_that_fails_costs_only_its_item(cluster, tiny_weights, photos):
    actor = stream._Restorer(work(tiny_weights), Quarantine())
    row = {
        "key": "a.png",
        "error": "",
        "panel": True,
        "part": 0,
        "verdict": RESTORED,
        **packed(Piece(Window.alone(photos[0][None, :40, :40]), None)),
    }
    assert not actor.restored(row)["error"]
    actor.model.forward = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of memory"))
    failed = actor.restored(row)
    assert (failed["verdict"], failed["panel_png"]) == (FAILED, b"")
    assert "out of memory" in failed["error"]


def test_flags_out_of_range_are_refused():
    with pytest.raises(ValueError, match="tile"):
        RestoreConfig("/a", "/b", tile=8)
    with pytest.raises(ValueError, match="quality"):
        RestoreConfig("/a", "/b", quality=0)


def test_overlapping_places_are_refused():
    for source, destination in (
        ("/a", "/a"),
        ("/a/b", "/a"),
        ("/a", "/a/b"),
        ("memory://x/y", "memory://x/y/z"),
    ):
        with pytest.raises(ValueError, match="overlap"):
            restore.restore(RestoreConfig(source, destination))


def test_a_missing_model_lists_what_there_is():
    with pytest.raises(models.ModelError, match="rain-light"):
        models.resolve("rain-huge")


@pytest.mark.cluster
def test_windows_follow_one_another(cluster, footage, tmp_path, monkeypatch, mlflow_store):
    """The second sees what the first committed; bytes that only moved are settled, what is gone is pruned."""
    source, config = tmp_path / "raw", RestoreConfig("raw", "dry")  # which workers could not find by that
    for key in ("cam1/a.png", "cam1/b.png", "broken.jpg", "notes.txt", "empty.png"):
        storage.download(f"{footage}/raw/{key}", _made(source / key))
    monkeypatch.setattr(restore, "WINDOW", 2)
    monkeypatch.setattr(restore, "WINDOW_OF_A_CPU", 0)
    config = replace(config, model=f"{footage}/model", panels=1)
    with monkeypatch.context() as patched:
        summary = restore.restore(replace(config, model=_rolled_back_meanwhile(footage, patched)))
    assert summary.counts == {RESTORED: 2, REJECTED: 2, IGNORED: 1}
    # All windows have the version that was champion when the run began; it is that file's.
    assert models.aliased("night", "champion") == 1
    assert {item.model_digest for item in Manifest(config.destination) if item.verdict != IGNORED} == {
        weights.digest(storage.read_bytes(config.model))
    }
    assert len(list((tmp_path / "dry" / "_spair" / "panels").iterdir())) == 1

    os.utime(source / "cam1" / "a.png", (0, 0))
    (source / "cam1" / "b.png").unlink()
    pruning = replace(config, prune=True)
    assert [item.key for item in restore.orphans(pruning, Manifest(config.destination))] == ["cam1/b.png"]
    again = restore.restore(pruning)
    assert (again.already, again.counts, again.pruned) == (3, {IGNORED: 1}, 1)
    assert not (tmp_path / "dry" / "cam1" / "b.png").exists()
    assert [item.key for item in Manifest(config.destination)] == [
        "broken.jpg", "cam1/a.png", "empty.png", "notes.txt"
    ]  # fmt: skip
    monkeypatch.setattr(restore, "Stream", None)
    assert restore.restore(config).already == 3


def _rolled_back_meanwhile(footage, patched):
    """A registered model whose alias goes back to the version before as soon as a run has an item."""
    ours = storage.read_bytes(f"{footage}/model")
    older = weights.save(weights.load(ours)[0], replace(weights.read_card(ours), provenance={"is": "older"}))
    with tracking.run("models", "two versions") as run:
        for version, data in enumerate((older, ours), 1):
            models.register("night", data, weights.read_card(data), run=run)
            known = {"expected": version - 1 or None, "versions": range(1, version + 1)}
            models.move_alias("night", "champion", version, **known)
    take = restore._take

    def take_and_go_back(row, ledger):
        take(row, ledger)
        if models.aliased("night", "champion") == 2:
            decision, _ = promotion.promote(promotion.PromoteConfig(rollback="models:/night"))
            assert decision.promote

    patched.setattr(restore, "_take", take_and_go_back)
    return "models:/night@champion"


def _made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_what_would_be_done_is_told(photos, tmp_path, tiny_weights):
    (tmp_path / "model").write_bytes(tiny_weights)
    for name in ("a.png", "b.mp4", "c.txt"):
        _made(tmp_path / "raw" / name).write_bytes(b"12345")
    config = RestoreConfig(str(tmp_path / "raw"), str(tmp_path / "dry"), model=str(tmp_path / "model"))
    seen = restore.forecast(config)
    assert (seen.items, seen.bytes, seen.ignored) == ({"picture": 1, "clip": 1}, 10, 1)
    assert not (tmp_path / "dry").exists()
    decided = restore._decided(config)
    book = Manifest(config.destination)
    mark = next(storage.list_objects(config.source)).identity
    digest = weights.digest(tiny_weights)
    settled = {"source_identity": mark, "model_digest": digest, "options": decided.options}
    book.add(Verdict("a.png", "picture", RESTORED, model_seconds=7200, **settled))
    book.commit()
    seen = restore.forecast(config)
    assert (seen.items, seen.settled, seen.bytes) == ({"clip": 1}, 1, 5)
    assert "2.00 hours of one model" in str(seen)


def test_float32_settles_what_was_restored_before_there_was_a_choice():
    config = RestoreConfig("/a", "/b", quality=95, precision="float32")
    assert config.options == "tile=1920 quality=95 crf=18 preset=veryfast min_degraded=0.0022"
    assert replace(config, precision="bfloat16").options == f"{config.options} precision=bfloat16"


def test_a_codec_that_is_asked_for_settles_nothing_that_was_written_in_another():
    config = RestoreConfig("/a", "/b", precision="float32")
    asked = replace(config, encode=EncodeConfig(codec="hevc"))
    assert asked.options == f"{config.options} codec=hevc"


@pytest.mark.parametrize("has", [True, False])
def test_the_precision_is_chosen_by_the_processor_before_any_work(has, monkeypatch):
    monkeypatch.setattr(precision, "_processor_has_bfloat16", lambda: has)
    decided = restore._decided(RestoreConfig("/a", "/b"))
    assert decided.precision == ("bfloat16" if has else "float32")
    assert restore._decided(replace(decided, precision="float32")).precision == "float32"
