"""Two models on footage, through the real stream."""

from pathlib import Path

import mlflow
import numpy as np
import pytest

from jobs import compare as job
from pipelines.judging import comparison
from pipelines.judging.comparison import CompareConfig
from pipelines.services import models, storage
from spair_core import images, inference, weights
from spair_core.images import encode_png
from tests.pipelines.media.test_clips import make_clip


@pytest.fixture
def footage(photos, s3, tmp_path, two_models):
    frames = [np.roll(photos[0][:48, :64], i, axis=1) for i in range(40)]
    clip = make_clip(tmp_path / "clip.mp4", frames).read_bytes()
    for key, data in {
        "cam1/a.png": encode_png(photos[0][:40, :60]),
        "cam1/b.png": encode_png(photos[1][:33, :21]),
        "cam2/drive.mp4": clip,
        "cam2/cut.mp4": clip[:2000],
        "broken.jpg": b"\xff\xd8\xff nonsense",
        "notes.txt": b"hello",
        "track.gpx": b"hello",
    }.items():
        storage.write_bytes(f"{s3}/raw/{key}", data)
    for name, data in zip(("tiny", "other"), two_models, strict=True):
        storage.write_bytes(f"{s3}/{name}", data)
    return s3


@pytest.mark.cluster
def test_two_models_are_held_against_one_another(cluster, footage, photos, mlflow_store, two_models, capsys):
    job.main(CompareConfig(f"{footage}/tiny", f"{footage}/other", f"{footage}/raw", frame_step=10, panels=2))
    shown = capsys.readouterr().out
    assert "6 pictures and frames" in shown  # two pictures, and the clip's frames 0, 10, 20 and 30
    assert "not read: broken.jpg" in shown
    assert "not read: cam2/cut.mp4" in shown
    assert "not read: 2 other files" in shown

    client = mlflow.MlflowClient(mlflow_store)
    (experiment,) = client.search_experiments(filter_string="name = 'spair-comparison'")
    (run,) = client.search_runs([experiment.experiment_id])
    panels = [file.path for file in client.list_artifacts(run.info.run_id, "panels")]
    assert len(panels) == shown.count("apart: ") == 2
    drawn = images.decode(Path(client.download_artifacts(run.info.run_id, panels[0])).read_bytes())
    assert drawn.pixels.shape[2] == 3
    assert run.data.metrics["pictures"] == 6
    assert run.data.metrics["unread"] == 3
    # Of the clip all frames went through both models, beside those that were looked at.
    for side in ("champion", "challenger"):
        assert run.data.metrics[f"{side}.flicker"] > 0
        assert run.data.metrics[f"{side}.residue"] > 0
        assert 0 <= run.data.metrics[f"{side}.flips"] < 1
    assert "flicker" in shown


@pytest.mark.cluster
def test_what_is_measured_is_what_it_says(cluster, footage, photos, mlflow_store, two_models):
    storage.write_bytes(f"{footage}/one/a.png", encode_png(photos[0][:40, :60]))
    found = comparison.compare(CompareConfig(f"{footage}/tiny", f"{footage}/other", f"{footage}/one"))
    picture = photos[0][:40, :60]
    a, b = (inference.restore(weights.load(data)[0], picture[None]) for data in two_models)
    (mask_a, mask_b), (out_a, out_b) = (
        (a.mask[0], b.mask[0]),
        (a.pixels[0].astype(int), b.pixels[0].astype(int)),
    )
    assert found.count == 1
    assert found.champion.degraded_share == pytest.approx(mask_a.mean())
    assert found.challenger.degraded_quantiles == pytest.approx([mask_b.mean()] * 3)
    assert found.mask_iou == pytest.approx((mask_a & mask_b).sum() / (mask_a | mask_b).sum())
    assert found.difference == pytest.approx(np.abs(out_a - out_b).mean(), rel=1e-5)
    either = mask_a | mask_b
    for side, out in ((found.champion, out_a), (found.challenger, out_b)):
        change = np.abs(out - picture)
        for measured, where in ((side.change_clean, ~either), (side.change_degraded, either)):
            assert where.any()
            assert measured == pytest.approx(change[where].mean(), rel=1e-5)
    assert found.apart == (("a.png", found.difference),)


@pytest.mark.cluster
def test_the_limit_is_shared_out(cluster, footage, mlflow_store):
    both = f"{footage}/tiny", f"{footage}/other"
    storage.write_bytes(f"{footage}/clips/a.mp4", storage.read_bytes(f"{footage}/raw/cam2/drive.mp4"))
    storage.write_bytes(f"{footage}/clips/b.mp4", storage.read_bytes(f"{footage}/raw/cam2/drive.mp4"))
    config = CompareConfig(
        *both, f"{footage}/clips", limit=5, frame_step=1, panels=9, steady_clips=1, steady_frames=2
    )
    found = comparison.compare(config)
    assert found.count == 5
    assert {key.split("#")[0] for key, _ in found.apart} == {"a.mp4", "b.mp4"}

    def frames(limit):
        items, _ = comparison._footage(CompareConfig(*both, f"{footage}/clips", limit=limit))
        return [item.frames for item in items]

    assert [frames(limit) for limit in (1, 2, 5, None)] == [[1], [1, 1], [3, 2], [-1, -1]]
    storage.write_bytes(f"{footage}/clips/a.png", storage.read_bytes(f"{footage}/raw/cam1/a.png"))
    assert sorted(frames(8)) == [1, 3, 4]


def test_what_cannot_be_compared_is_refused(footage, mlflow_store):
    both = f"{footage}/tiny", f"{footage}/other"
    with pytest.raises(models.ModelError, match="the same model"):
        comparison.compare(CompareConfig(both[0], both[0], f"{footage}/raw"))
    # Archives and tables hold pictures, and are none.
    for name in ("a.txt", "a.zip", "a.tar.gz", "a.parquet"):
        storage.write_bytes(f"{footage}/notes/{name}", b"hello")
    with pytest.raises(ValueError, match="neither pictures nor clips"):
        comparison.compare(CompareConfig(*both, f"{footage}/notes"))
    with pytest.raises(ValueError, match="frame_step"):
        CompareConfig(*both, "x", frame_step=0)
    with pytest.raises(ValueError, match="tile must be at least 128"):
        CompareConfig(*both, "x", tile=1)
    with pytest.raises(ValueError, match="num_gpus at least 0"):
        CompareConfig(*both, "x", num_gpus=-1)
