"""How fast a folder is restored beside a loop that is written for the purpose.

The loop is what one would write by hand: a process a core, each of which takes its share of the files,
decodes, restores and encodes them one after another, with the same model and settings, and writes no
verdicts. Both are held to the same cores and take turns. The loop's clock starts when its models are loaded;
the job is run on a quarter of the files and on all of them, each time anew, and the difference is what the
other files cost: its start and its end, which both runs have, are a figure of their own. Rates are medians of
the rounds, the ratio is the job's to the loop's.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from pipelines.media import Encoding, medium_in
from pipelines.restoration.manifest import Manifest
from pipelines.restoration.plan import Selection
from pipelines.restoration.restore import RestoreConfig, restore
from pipelines.services import models
from spair_core import inference
from spair_core.footage import Reach
from spair_core.inference import chosen


@dataclass(frozen=True)
class RestoringConfig:
    """What is restored, and how often."""

    source: str
    """A local folder of pictures and clips."""
    model: str = "footage-light"
    """As for a restoration."""
    cores: int = 2
    """Cores that each may use; the loop has a process on each."""
    rounds: int = 3
    """Turns that each takes."""
    json: str | None = None
    """Write the rows here as well."""


def loop_rate(config: RestoringConfig) -> float:
    """Frames a second of the hand-written loop."""
    files = sorted(path for path in Path(config.source).rglob("*") if path.is_file())
    with (
        tempfile.TemporaryDirectory() as out,
        ProcessPoolExecutor(config.cores, mp_context=get_context("spawn")) as pool,
    ):
        shares = [files[core :: config.cores] for core in range(config.cores)]
        done = list(pool.map(_loop, shares, [config.model] * config.cores, [out] * config.cores))
    return sum(frames for frames, _ in done) / max(seconds for _, seconds in done)


def _loop(files: Sequence[Path], name: str, out: str) -> tuple[int, float]:
    torch.set_num_threads(1)
    model = models.load_here(models.resolve(name).data, chosen("auto"))
    started, frames = time.perf_counter(), 0
    for file in files:
        frames += _restored(file, model, Path(out) / file.name)
    return frames, time.perf_counter() - started


def _restored(file: Path, model: Any, target: Path) -> int:
    kind, parts, frames, found = medium_in(file), [], 0, False
    for piece in kind.read(file, Reach()):
        result = inference.restore_window(model, piece.window)
        frames, found = frames + len(result.pixels), found or bool(result.mask.any())
        if found or kind.join is not None:
            parts.append(kind.write(piece.state, result.pixels, Encoding()))
    if not found:
        shutil.copy(file, target)
    elif kind.join is not None:
        kind.join(iter(parts), file, target)
    else:
        target.write_bytes(parts[0])
    return frames


def job_rate(config: RestoringConfig) -> tuple[float, float]:
    """Frames a second of the job, and the seconds of its start and end."""
    files = sum(path.is_file() for path in Path(config.source).rglob("*"))
    (some, short), (frames, long) = (
        _apart(partial(_job, limit), config) for limit in (max(1, files // 4), files)
    )
    rate = (frames - some) / (long - short)
    return rate, long - frames / rate


def _job(limit: int, config: RestoringConfig) -> tuple[int, float]:
    """The frames of the first files, and the seconds that they took."""
    with tempfile.TemporaryDirectory() as out:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{out}/mlflow.db"
        selection = Selection(limit=limit)
        began = time.perf_counter()
        restore(RestoreConfig(config.source, f"{out}/dry", model=config.model, panels=0, selection=selection))
        seconds = time.perf_counter() - began
        return sum(verdict.frames for verdict in Manifest(f"{out}/dry")), seconds


def _apart(task: Any, config: RestoringConfig) -> Any:
    """In a process of its own, held to the cores with all its children."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_held, task, config).result()


def _held(task: Any, config: RestoringConfig) -> Any:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: config.cores])
    return task(config)


def measure(config: RestoringConfig) -> list[dict[str, Any]]:
    """The rows of both."""
    loops, jobs, rests = [], [], []
    for _ in range(config.rounds):
        loops.append(_apart(loop_rate, config))
        rate, rest = job_rate(config)
        jobs.append(rate)
        rests.append(rest)
    loop, job = statistics.median(loops), statistics.median(jobs)
    return [
        {"what": f"a loop on {config.cores} cores", "figure": loop, "unit": "frames/s", "ratio": None},
        {"what": "a restoration", "figure": job, "unit": "frames/s", "ratio": job / loop},
        {"what": "its start and end", "figure": statistics.median(rests), "unit": "s", "ratio": None},
    ]
