"""The jobs as their users run them: flags, exit codes, error lines, tables."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ray

from jobs import entry, evaluate, ingest, nightly_derain
from pipelines.judging.evaluation import EvaluateConfig
from pipelines.services import faults, storage, tracking
from spair_core import weights
from spair_core.images import encode_png
from spair_core.masks import mask_from_pair
from tests.jobs import fresh

PROJECT = Path(__file__).resolve().parents[2]
JOBS = sorted(
    path.name for path in (PROJECT / "jobs").glob("*.py") if path.name not in ("__init__.py", "entry.py")
)


@dataclass(frozen=True)
class Config:
    number: int = 1


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (None, 0),
        (3, 3),
        (RuntimeError("bad thing"), 1),
        (ValueError("bad thing"), 2),
        (OSError("bad thing"), 1),
        (BrokenPipeError("bad thing"), 1),  # not the output's
        (storage.NothingStoredError("bad thing"), 3),
        (faults.HeldError("bad thing"), 5),
        (storage.StoreUnavailableError("bad thing"), 75),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes_and_error_lines(outcome, code, monkeypatch, capsys):
    def job(config):
        assert config.number == 7
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(sys, "argv", ["job", "--number", "7"])
    with pytest.raises(SystemExit) as ended:
        entry.run(job, Config, "a job")
    assert ended.value.code == code
    if isinstance(outcome, Exception):
        assert capsys.readouterr().err == "error: bad thing\n"


def ended(job, config, flags, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["job", *flags])
    with pytest.raises(SystemExit) as end:
        entry.run(job, config, "a job")
    return end.value.code


def test_wrong_flags_are_told_from_what_went_wrong(monkeypatch, capsys):
    assert ended(print, Config, ["--numbr", "7"], monkeypatch) == 2
    assert ended(print, Config, ["--help"], monkeypatch) == 0
    told = capsys.readouterr().out
    assert all(f"{code}: " in told for code in (0, 1, 2, 3, 4, 5, 75))
    assert "130 or 143: " in told


def test_a_source_that_is_empty_or_does_not_answer(tmp_path, monkeypatch, capsys):
    flags = ["--source", str(tmp_path), "--destination", str(tmp_path / "out")]
    assert ended(ingest.main, ingest.IngestConfig, flags, monkeypatch) == 3
    assert re.fullmatch(r"error: .*holds no files\n", capsys.readouterr().err)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert ended(ingest.main, ingest.IngestConfig, flags, monkeypatch) == 75
    assert re.fullmatch(r"error: .*RAY_ADDRESS.*\n", capsys.readouterr().err)


@pytest.mark.parametrize(("buffered", "code"), [(True, 0), (False, 128 + signal.SIGPIPE)])
def test_a_reader_that_has_enough_is_no_error(buffered, code):
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    command = [sys.executable, "-m", "jobs.spair", "--help"]
    with open(writing, "wb") as gone:
        ended = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, env=environment, check=False)
    assert (ended.returncode, ended.stderr) == (code, b"")


@pytest.mark.cluster
def test_an_error_from_another_process_is_one_line_too(cluster, monkeypatch, capsys):
    def job(_):
        ray.get(ray.remote(storage.check_source).remote("/nowhere"))

    assert ended(job, Config, [], monkeypatch) == 3
    assert capsys.readouterr().err == "error: /nowhere: nothing is there; check the bucket and the prefix\n"


@pytest.mark.long
@pytest.mark.xdist_group("fresh processes")  # one worker starts what they are forked from
@pytest.mark.parametrize("job", JOBS)
def test_every_job_explains_itself(job, tmp_path):
    command = [str(PROJECT / "jobs" / job), "--help"]
    process = fresh.starter()(target=fresh.run, args=(command, tmp_path / "shown"))
    process.start()
    process.join(120)
    shown = (tmp_path / "shown").read_text()
    assert process.exitcode == 0, shown
    assert "--" in shown
    assert not [line for line in shown.splitlines() if line.count("python jobs/") > 1]


def test_the_night_is_put_into_the_locations():
    config = nightly_derain.NightlyConfig("s3://a/{night}", "s3://b/{night}/dry", night="2026-11-20")
    assert config.restoration().source == "s3://a/2026-11-20"
    assert config.restoration().destination == "s3://b/2026-11-20/dry"
    with pytest.raises(ValueError, match="night is a date such as"):
        nightly_derain.NightlyConfig("a", "b", night="yesterday").restoration()
    with pytest.raises(ValueError, match=r"destination: \{nigth\} stands for nothing; .* \{night\}"):
        nightly_derain.NightlyConfig("a/{night}", "b/{nigth}").restoration()


@pytest.fixture
def pairs(photos, s3, rainy):
    for name, shift in (("set1", 0), ("set2", 60)):
        for i in range(2):
            clean = photos[i][shift : shift + 48, :64]
            storage.write_bytes(f"{s3}/{name}/input/{i}.png", encode_png(rainy(clean)))
            storage.write_bytes(f"{s3}/{name}/target/{i}.png", encode_png(clean))
    storage.write_bytes(f"{s3}/set1/input/bad.png", b"nonsense")
    storage.write_bytes(f"{s3}/set1/target/bad.png", b"nonsense")
    return s3


@pytest.fixture
def rainy():
    from spair_core.degradations.rain import LIGHT, RainConfig, add_rain

    return lambda clean: add_rain(
        clean, np.random.default_rng(0), RainConfig(families=(LIGHT,), weights=(1,), dry=0, haze=0)
    )[0]


@pytest.mark.cluster
def test_evaluate_prints_a_table_and_writes_json(cluster, pairs, tiny_weights, capsys):
    storage.write_bytes(f"{pairs}/model", tiny_weights)
    evaluate.main(
        EvaluateConfig((f"{pairs}/set1", f"{pairs}/set2"), f"{pairs}/model", json=f"{pairs}/out.json")
    )
    first, second = json.loads(storage.read_bytes(f"{pairs}/out.json"))
    assert (first["name"], first["count"], second["name"], second["count"]) == ("set1", 2, "set2", 2)
    assert "bad" in first["rejected"][0][0]
    assert 0 <= first["mask_precision"] <= 1
    assert first["worst_gain_y"]["key"] in ("0", "1")
    shown = capsys.readouterr().out
    assert "set2" in shown
    assert "rejected: set1/bad" in shown

    def numbers(key):
        from spair_core import images, inference, metrics

        read = [
            images.decode(storage.read_bytes(f"{pairs}/set2/{side}/{key}.png")).pixels
            for side in ("input", "target")
        ]
        restored = inference.restore(weights.load(tiny_weights)[0], read[0][None])
        true = mask_from_pair(read[0], read[1], 0.05)
        return metrics.psnr_y(restored.pixels[0], read[1]), metrics.mask_scores(restored.mask[0], true)[1]

    by_hand = [numbers(key) for key in ("0", "1")]
    assert second["psnr_y"] == pytest.approx(np.mean([n[0] for n in by_hand]))
    assert second["mask_recall"] == pytest.approx(np.mean([n[1] for n in by_hand]))


def test_an_mlflow_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(tracking.TrackingError, match=r"127.0.0.1:9.*MLFLOW_TRACKING_URI"),
        tracking.run("a", "b"),
    ):
        pass


@pytest.mark.long
def test_runs_are_resumed_by_name_and_marked_when_they_fail(mlflow_store):
    def fails():
        with tracking.run("nights", "s3://dry") as run:
            run.log_params({"a": {"b": 1}})
            raise ValueError("broke")

    with pytest.raises(ValueError, match="broke"):
        fails()
    store = tracking.client()
    (broken,) = store.search_runs([store.get_experiment_by_name("nights").experiment_id])
    assert broken.info.status == "FAILED"
    with tracking.run("nights", "s3://dry") as run:
        run.log_params({"a": {"b": 1}, "c": 2})
    with tracking.run("nights", "s3://dry") as later:
        pass
    assert run.run_id == broken.info.run_id != later.run_id
    again = store.get_run(run.run_id)
    assert again.info.status == "FINISHED"
    assert again.data.params == {"a.b": "1", "c": "2"}
