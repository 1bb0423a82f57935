"""The benchmark of the data path: that all contestants give the same kind of batch, and what it prints."""

import json
import sys

import pytest

from pipelines.benchmark import __main__ as command
from pipelines.benchmark import reading
from pipelines.benchmark.reading import ReadingConfig
from pipelines.services import storage
from spair_core.degradations.rain import add_rain
from spair_core.images import encode_png
from spair_core.learning import Batch, CropConfig


@pytest.fixture
def config(photos, tmp_path):
    import numpy as np

    for number in range(4):
        clean = photos[number][:40, :48]
        rainy, _ = add_rain(clean, np.random.default_rng(number))
        for folder, picture in (("input", rainy), ("target", clean)):
            storage.write_bytes(f"{tmp_path}/{folder}/{number}.png", encode_png(picture))
    return ReadingConfig(
        "s3://nowhere/shards", str(tmp_path), CropConfig(crop_size=24), batch_size=2, steps=2
    )


def test_the_files_give_batches_without_end(config):
    batches = reading.file_loader(config)
    for _ in range(3):
        batch = next(batches)
        assert isinstance(batch, Batch)
        assert batch.degraded.shape == batch.clean.shape == (2, 3, 24, 24)
        assert batch.mask.shape == (2, 1, 24, 24)


@pytest.mark.long
def test_what_cannot_be_measured_is_told(config, capsys):
    assert reading._apart("that", reading.crop_rate, "mosaicml-streaming", config) is None
    assert "not measured: that: " in capsys.readouterr().err


def test_a_step_takes_time(config):
    crops = reading._Files(config)
    batch = reading._collated([crops[0], crops[1]])
    assert reading.step_seconds([batch] * 2) > 0


def test_the_table_holds_each_against_ours(config, monkeypatch, capsys, tmp_path):
    figures = {
        "shards through Ray Data": 30.0,
        "files through torch's DataLoader": 20.0,
        "mosaicml-streaming": None,
        "a step in a bare loop": 0.5,
        "a step in a Ray Train worker": 0.505,
    }
    monkeypatch.setattr(reading, "_apart", lambda name, *_: figures[name])
    out = tmp_path / "rows.json"
    flags = ["--shards", config.shards, "--files", config.files, "--rounds", "2", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["benchmark", "reading", *flags])
    command.main()
    rows = {row["what"]: row for row in json.loads(out.read_text())}
    assert {name: row["figure"] for name, row in rows.items()} == figures
    assert rows["files through torch's DataLoader"]["ratio"] == 1.5
    assert rows["a step in a Ray Train worker"]["ratio"] == pytest.approx(1.01)
    assert rows["mosaicml-streaming"]["ratio"] is None
    assert "not measured" in capsys.readouterr().out
