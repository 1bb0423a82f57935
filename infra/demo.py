"""A night of rainy footage, from a bucket to a bucket, all on this machine.

    make demo

starts an object store on loopback, fills a bucket with clips and stills in seeded rain and one broken
file, and runs the nightly job on it as anyone would. The job brings its own Ray and writes to an MLflow
database. At the end everything is stopped; what is worth a look is kept.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from infra import footage
from infra.footage import Item, Pixels
from infra.stack import StackError, object_store, ray_on_loopback, stop_on_signals, task
from pipelines.media import medium_of
from pipelines.restoration import manifest
from pipelines.restoration.manifest import DONE, Manifest, Verdict
from pipelines.services import locations, storage
from spair_core.metrics import psnr_y

JOB = Path(__file__).parents[1] / "jobs" / "nightly_derain.py"
NIGHT = "2026-11-20"
SOURCE, DESTINATION = "s3://dashcams", "s3://dashcams-dry"
SHOWN_CLIP, SHOWN_STILL = "front/drive.mp4", "stills/temple.jpg"


@dataclass(frozen=True)
class DemoConfig:
    """What the demo runs with."""

    model: str = "footage-light"
    """A file, a URI, or the name of shipped weights."""
    folder: Path = Path(".demo")
    """Emptied first; afterwards it holds the results, the buckets and MLflow's database."""
    seed: int = 0
    """Of the rain."""


@dataclass(frozen=True)
class Row:
    """What became of an item; PSNR on Y, in dB, against the clean original."""

    verdict: Verdict
    before: float
    after: float


def main() -> None:
    """Run the demo."""
    config = tyro.cli(DemoConfig, description=__doc__)
    stop_on_signals()
    started = time.monotonic()
    try:
        demonstrate(config)
    except StackError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; everything is stopped")
    print(f"\nDone in {time.monotonic() - started:.0f} s; everything that was started is stopped.")


def demonstrate(config: DemoConfig) -> None:
    """Fill the bucket, run the job, show what became of it. Raises StackError where the job fails."""
    folder = config.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with object_store(folder / "buckets", buckets=("dashcams", "dashcams-dry")) as store:
        os.environ.update(store)
        print(f"Object store at {store['AWS_ENDPOINT_URL']}; making {SOURCE}/{NIGHT} ...", flush=True)
        items = list(footage.night(config.seed))
        for item in items:
            storage.write_bytes(locations.join(SOURCE, NIGHT, item.key), item.data)
        run_job(config, folder, store)
        report(items, folder)
    tell_where(config.folder)


def run_job(config: DemoConfig, folder: Path, store: Mapping[str, str]) -> None:
    """The nightly job in a process of its own, with a Ray that keeps to itself."""
    flags = ["--source", SOURCE + "/{night}", "--destination", DESTINATION + "/{night}", "--night", NIGHT]
    flags += [
        "--model",
        _anywhere(config.model),
        "--actors",
        str(min(4, os.cpu_count() or 1)),
        "--panels",
        "8",
    ]
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "MLFLOW_DISABLE_TELEMETRY": "true"}
    print(f"$ python jobs/{JOB.name} {' '.join(flags)}", flush=True)
    with ray_on_loopback() as private:
        # MLflow keeps its files in the working directory.
        status = task([sys.executable, str(JOB), *flags], {**store, **tracking, **private}, folder)
    if status:
        raise StackError(f"the job ended with status {status}; what it printed is above")


def _anywhere(model: str) -> str:
    return str(Path(model).resolve()) if Path(model).is_file() else model


def report(items: list[Item], folder: Path) -> None:
    """Print the table, and copy what is shown out of the bucket."""
    result = locations.join(DESTINATION, NIGHT)
    verdicts = {verdict.key: verdict for verdict in Manifest(result)}
    print(f"\n{'item':<20} {'verdict':<9} {'degraded':>8} {'PSNR before':>12} {'after':>9}")
    for item in items:
        print(_line(_row(item, verdicts[item.key])))
    panel = f"{locations.as_file_name(SHOWN_STILL)}.png"
    storage.download(locations.join(result, manifest.FOLDER, "panels", panel), folder / "before-after.png")
    storage.download(locations.join(SOURCE, NIGHT, SHOWN_CLIP), folder / "rainy.mp4")
    storage.download(locations.join(result, SHOWN_CLIP), folder / "restored.mp4")
    frames = [_frames(SHOWN_CLIP, (folder / name).read_bytes()) for name in ("rainy.mp4", "restored.mp4")]
    loop(frames[0], frames[1], folder / "drive.webp")


def loop(before: Pixels, after: Pixels, path: Path) -> None:
    """Write an animation: rainy left of a line that goes to and fro, restored on its right."""
    width = before.shape[2]
    shown = []
    for number, (rainy, restored) in enumerate(zip(before, after, strict=True)):
        line = round(width * (0.5 + 0.35 * np.sin(2 * np.pi * number / len(before))))
        frame = np.where(np.arange(width)[:, None] < line, rainy, restored)
        frame[:, line : line + 2] = 255
        shown.append(Image.fromarray(frame.astype(np.uint8)))
    milliseconds = round(1000 / footage.FRAMES_PER_SECOND)
    shown[0].save(
        path, save_all=True, append_images=shown[1:], duration=milliseconds, loop=0, quality=55, method=4
    )


def _row(item: Item, verdict: Verdict) -> Row:
    if verdict.verdict not in DONE:
        return Row(verdict, np.nan, np.nan)
    restored = storage.read_bytes(verdict.output_uri)
    return Row(verdict, _psnr(item.key, item.data, item.clean), _psnr(item.key, restored, item.clean))


def _psnr(key: str, data: bytes, clean: Pixels) -> float:
    """The mean over the frames of a file."""
    return float(np.mean([psnr_y(a, b) for a, b in zip(_frames(key, data), clean, strict=True)]))


def _frames(key: str, data: bytes) -> Pixels:
    kind = medium_of(key)
    assert kind is not None
    with tempfile.NamedTemporaryFile(suffix=Path(key).suffix) as file:
        file.write(data)
        file.flush()
        return np.concatenate([piece.window.pixels for piece in kind.read(Path(file.name), None)])


def _line(row: Row) -> str:
    verdict = row.verdict
    start = f"{verdict.key:<20} {verdict.verdict:<9}"
    if verdict.verdict not in DONE:
        return f"{start} {verdict.reason}"
    return f"{start} {verdict.degraded_share:>8.1%} {row.before:>9.2f} dB {row.after:>6.2f} dB"


def tell_where(folder: Path) -> None:
    """Print what to look at."""
    print(f"\nbefore and after   {folder}/before-after.png")
    print(f"a clip and its restoration   {folder}/rainy.mp4  {folder}/restored.mp4  {folder}/drive.webp")
    print("the run in MLflow, at http://127.0.0.1:5000 after")
    print(f"  .venv/bin/mlflow server --backend-store-uri sqlite:///{folder}/mlflow.db")


if __name__ == "__main__":
    main()
