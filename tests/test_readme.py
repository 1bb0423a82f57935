"""Every command of the README, run as it stands there, on buckets of the names that stand there.

What takes hours is shortened by flags behind it; what is tested elsewhere is named with its place.
"""

from __future__ import annotations

import datetime
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.data import shards
from pipelines.services import locations, models, storage, tracking
from spair_core import weights
from spair_core.degradations.rain import LIGHT, RainConfig, add_rain
from spair_core.images import encode_png
from tests.infra import manifests
from tests.pipelines.data.test_shards import row
from tests.pipelines.media.test_clips import make_clip

PROJECT = Path(__file__).resolve().parents[1]
BUCKETS = ("data", "dashcams", "dashcams-dry", "drives", "footage", "models", "reports", "shards")

BRIEF = "--batch-size 2 --localize-epochs 1 --restore-epochs 1 --epoch-steps 1 --crop-size 16"
BRIEF += " --cpus-per-worker 0.5"
SHORT = {"train_derain.py": f"--workers 1 --no-gpu {BRIEF}", "ablate.py": f"--nets 5 {BRIEF}"}
"""Flags behind those of a job."""
ELSEWHERE = {"make demo": "tests/infra/test_demo.py"}


COMMANDS = manifests.commands((PROJECT / "README.md").read_text(), "pip|spair|make|python|ray")
JOBS = [line for line in COMMANDS if "python jobs/" in line]
OTHERS = [line for line in COMMANDS if "python jobs/" not in line]


@pytest.fixture(scope="module")
def world(
    cluster: None,
    empty_mlflow: Path,
    photos: list[np.ndarray],
    tiny_weights: bytes,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """All that the README's commands speak of, on a small scale; gives the folder to run them in."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    filesystem, _ = locations.resolve("s3://tests/readme")
    for bucket in BUCKETS:
        if not filesystem.exists(bucket):
            filesystem.mkdir(bucket)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patched.chdir(folder)
        _pictures(photos)
        _shards(photos)
        _clips(photos, folder)
        _versions(tiny_weights)
        yield folder


def _pictures(photos: list[np.ndarray]) -> None:
    clean = [photo[40:104, 40:120] for photo in photos]
    rain = RainConfig(families=(LIGHT,), weights=(1,), dry=0, haze=0)
    rainy = [add_rain(photo, np.random.default_rng(0), rain)[0] for photo in clean]
    yesterday = datetime.date.today() - datetime.timedelta(days=1)
    for night in ("2026-11-20", yesterday.isoformat()):
        storage.write_bytes(f"s3://dashcams/{night}/a.png", encode_png(rainy[0]))
    storage.write_bytes("s3://footage/raw/a.png", encode_png(rainy[1]))
    for number, photo in enumerate(clean[:2]):
        storage.write_bytes(f"s3://data/photos/{number}.png", encode_png(photo))
    scene = "GOPR0372_07_00"
    for split in ("train", "test"):
        for side, made in (("blur", rainy[0]), ("sharp", clean[0])):
            storage.write_bytes(f"s3://data/GoPro/{split}/{scene}/{side}/000047.png", encode_png(made))
    for name in ("Rain100L", "Rain100H"):
        for side, made in (("input", rainy[2]), ("target", clean[2])):
            for place in ("s3://data/Rain13K/test", "data/test"):
                storage.write_bytes(f"{place}/{name}/{side}/1.png", encode_png(made))
    for name, made in (("rainy.png", rainy[3]), ("clean.png", clean[3])):
        storage.write_bytes(name, encode_png(made))


def _shards(photos: list[np.ndarray]) -> None:
    sets = {"rain13k": "Rain13K", "rain100l": "Rain100L", "rain100h": "Rain100H", "agan": "AGAN-a"}
    sets["tests"] = "Rain100L"
    for folder, name in sets.items():
        place = f"s3://shards/{folder}"
        written = [
            shards.write_shard(
                place, [row(f"{split}{n}", photos[n][:48, :64], split=split, set=name) for n in range(2)]
            )
            for split in ("train", "val", "test")
        ]
        shards.commit(place, written, {})


def _clips(photos: list[np.ndarray], folder: Path) -> None:
    frames = [np.roll(photos[0][:64, :96], number, axis=1) for number in range(6)]
    clip = make_clip(folder / "clip.mp4", frames).read_bytes()
    for side in ("input", "target"):
        storage.write_bytes(f"s3://drives/test/{side}/drive.mp4", clip)


def _versions(first: bytes) -> None:
    """Seven versions of one model, of which the last is better than the champion, and one of another."""
    better = weights.shipped("rain-light")
    model, card = weights.load(better)
    raindrop = weights.save(model, replace(card, task="raindrop"))
    with tracking.run("models", "shipped") as run:
        for data in (*[first] * 6, better):
            models.register("spair-rain", data, weights.read_card(data), run=run)
        models.register("spair-raindrop", raindrop, weights.read_card(raindrop), run=run)
    for name in ("spair-rain", "spair-raindrop"):
        models.move_alias(name, "champion", 1, expected=None, versions=[1])


@pytest.mark.long
@pytest.mark.cluster
@pytest.mark.parametrize("command", JOBS)
def test_a_jobs_command_works(
    command: str, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command.partition("python ")[2])
    job = Path(words[0]).name
    monkeypatch.setattr(sys, "argv", [job, *words[1:], *shlex.split(SHORT.get(job, ""))])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(PROJECT / words[0]), run_name="__main__")
    assert end.value.code == 0, capsys.readouterr()


@pytest.mark.long
def test_what_is_installed_restores(photos: list[np.ndarray], tmp_path: Path) -> None:
    """`pip install .` (its dependencies are there) and then `spair restore`, away from the repository."""
    installing, restoring = OTHERS[:2]
    assert (installing, restoring.split()[:2]) == ("pip install .", ["spair", "restore"])
    target = tmp_path / "installed"
    copy = shutil.copytree(
        PROJECT, tmp_path / "source", ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "tests")
    )
    install = [sys.executable, "-m", *shlex.split(installing), "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*install, "--target", str(target)], cwd=copy, check=True, timeout=240)
    shutil.rmtree(copy)
    work = tmp_path / "work"
    for name in ("photo.jpg", "holiday/a.png"):
        storage.write_bytes(str(work / name), encode_png(photos[0][:64, :96]))
    make_clip(work / "drive.mp4", [photos[0][:64, :96]] * 4)
    # Isolated from this environment's own, editable installation.
    code = f"import sys; sys.path.insert(0, {str(target)!r}); from jobs.spair import main; main()"
    words = shlex.split(restoring)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words[1:]],
        cwd=work,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert (work / "photo.restored.jpg").exists()
    assert (work / "drive.restored.mp4").exists()
    assert list(work.rglob("*compare*")), sorted(work.rglob("*"))


def test_what_is_not_run_here_is_tested_elsewhere() -> None:
    assert set(OTHERS[2:]) == set(ELSEWHERE)
    assert all((PROJECT / place).exists() for place in ELSEWHERE.values())


def test_commands_are_found() -> None:
    assert len(JOBS) > 12
