"""How fast crops come out of shards, and what Ray Train adds to a step, beside the usual ways.

Crops a second and core: the stream that training reads, from Parquet shards wherever they are, against
torch's DataLoader over the pairs' files on a local disk and against mosaicml-streaming over the same
pairs in its own format on a local disk. All decode, cut and flip alike, each in a process that is held,
with all its children, to `cores` cores; a store's server may use others. They take turns; a rate is the
median of the rounds, counted from the second batch on. Seconds a training step: the same steps in a bare loop
and inside a Ray Train worker. What cannot be measured is null, and the reason goes to stderr.
"""

from __future__ import annotations

import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle, islice
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pipelines.data.crop_stream import crop_example, epoch_batches
from pipelines.data.layouts import PairFiles, find
from pipelines.data.shards import list_row_groups
from pipelines.services import cluster, storage
from spair_core import images, network
from spair_core.degradations.crops import Example
from spair_core.learning import Batch, CropConfig, Learner, LearningConfig, to_batch
from spair_core.network import Spair


@dataclass(frozen=True)
class ReadingConfig:
    """What is read, and how long."""

    shards: str
    """Shards of pairs, as jobs/ingest.py wrote them, local or on a store."""
    files: str
    """The same pairs as files on a local disk: a folder with input/ and target/."""
    crops: CropConfig = field(default_factory=CropConfig)
    batch_size: int = 16
    """Crops of a batch."""
    batches: int = 60
    """Batches that a rate is counted over."""
    steps: int = 12
    """Training steps that a time is counted over."""
    cores: int = 1
    """Cores that reading may use."""
    rounds: int = 3
    """Turns that each takes."""
    json: str | None = None
    """Write the rows here as well."""


Arrays = dict[str, NDArray[Any]]


def shard_stream(config: ReadingConfig) -> Iterator[Batch]:
    """What a training worker reads."""
    cluster.connect(config.cores)
    groups = list_row_groups([config.shards])
    return epoch_batches(groups, config.crops, 0, batch_size=config.batch_size, steps=config.batches + 1)


class _Files(Dataset):
    def __init__(self, config: ReadingConfig) -> None:
        self.pairs, self.crops = find([config.files]).pairs, config.crops

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> Arrays:
        pair: PairFiles = self.pairs[number]
        return _cropped(storage.read_bytes(pair.input or ""), storage.read_bytes(pair.target), self.crops)


def file_loader(config: ReadingConfig) -> Iterator[Batch]:
    """torch's DataLoader over the files."""
    return _loaded(_Files(config), config, shuffle=True)


def mosaic_loader(config: ReadingConfig) -> Iterator[Batch]:
    """mosaicml-streaming over the same pairs. Raises ImportError where it is not installed."""
    streaming: Any = importlib.import_module("streaming")
    folder = tempfile.mkdtemp(prefix="spair-mds-")
    with streaming.MDSWriter(out=folder, columns={"input": "bytes", "target": "bytes"}) as writer:
        for pair in find([config.files]).pairs:
            parts = storage.read_bytes(pair.input or ""), storage.read_bytes(pair.target)
            writer.write({"input": parts[0], "target": parts[1]})

    source = streaming.StreamingDataset(local=folder, shuffle=True, batch_size=config.batch_size)
    return _loaded(_Streamed(source, config.crops), config, shuffle=None)


class _Streamed(IterableDataset):
    """Crops of a StreamingDataset's rows."""

    def __init__(self, source: Any, crops: CropConfig) -> None:
        self.source, self.crops = source, crops

    def __iter__(self) -> Iterator[Arrays]:
        for pair in self.source:
            yield _cropped(pair["input"], pair["target"], self.crops)


def _cropped(degraded: bytes, clean: bytes, crops: CropConfig) -> Arrays:
    example = Example(images.decode(degraded).pixels, images.decode(clean).pixels)
    crop = crop_example(example, crops, np.random.default_rng())
    return {name: getattr(crop, name) for name in ("degraded", "clean", "mask")}


def _loaded(dataset: Any, config: ReadingConfig, *, shuffle: bool | None) -> Iterator[Batch]:
    loader = DataLoader(
        dataset,
        batch_size=config.batch_size,
        shuffle=shuffle,
        num_workers=config.cores,
        collate_fn=_collated,
        drop_last=True,
        persistent_workers=True,
    )
    while True:
        yield from loader


def _collated(rows: list[Arrays]) -> Batch:
    return to_batch({name: np.stack([row[name] for row in rows]) for name in rows[0]})


LOADERS: dict[str, Callable[[ReadingConfig], Iterator[Batch]]] = {
    "shards through Ray Data": shard_stream,
    "files through torch's DataLoader": file_loader,
    "mosaicml-streaming": mosaic_loader,
}


def crop_rate(name: str, config: ReadingConfig) -> float:
    """Crops a second and core of one of LOADERS, in this process, which is held to `config.cores` cores."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: config.cores])
    batches = LOADERS[name](config)
    next(batches)
    started, crops = time.perf_counter(), 0
    for batch in islice(batches, config.batches):
        crops += len(batch.clean)
    return crops / (time.perf_counter() - started) / config.cores


def step_seconds(batches: list[Batch]) -> float:
    """Median seconds of training steps (both networks of preset light) on batches at hand."""
    torch.set_num_threads(1)
    learner = Learner(Spair(network.light()), "joint", LearningConfig())
    seconds = []
    for batch in batches:
        started = time.perf_counter()
        learner.step(batch, 1e-4)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def step_seconds_in_ray(batches: list[Batch]) -> float:
    """The same inside a Ray Train worker."""
    cluster.connect()
    trainer = TorchTrainer(
        _work, train_loop_config={"batches": batches}, scaling_config=ScalingConfig(num_workers=1)
    )
    return float(trainer.fit().return_value)


def _work(job: dict[str, Any]) -> float:
    return step_seconds(job["batches"])


def _apart(name: str, task: Callable[..., float], *arguments: object) -> float | None:
    """Run in a process of its own; None where that fails."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(task, *arguments).result()
        except (ImportError, RuntimeError, ValueError) as reason:
            print(f"not measured: {name}: {reason!r}", file=sys.stderr)
            return None


def measure(config: ReadingConfig) -> list[dict[str, Any]]:
    """A row each: what, its figure, its unit, and ours over it (rates) or it over ours (seconds)."""
    found: dict[str, list[float]] = {name: [] for name in LOADERS}
    for _ in range(config.rounds):
        for name, rates in found.items():
            rate = _apart(name, crop_rate, name, config)
            rates += [] if rate is None else [rate]
    medians = {name: statistics.median(rates) if rates else None for name, rates in found.items()}
    ours = medians["shards through Ray Data"]
    rows = [
        {
            "what": name,
            "figure": rate,
            "unit": "crops/s/core",
            "ratio": ours / rate if ours and rate else None,
        }
        for name, rate in medians.items()
    ]
    return rows + _step_rows(config)


def _step_rows(config: ReadingConfig) -> list[dict[str, Any]]:
    files = _Files(config)
    crops = [files[number] for number in islice(cycle(range(len(files))), config.batch_size)]
    batches = [_collated(crops)] * config.steps
    ways = {"a step in a bare loop": step_seconds, "a step in a Ray Train worker": step_seconds_in_ray}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(config.rounds):
        for name, way in ways.items():
            seconds = _apart(name, way, batches)
            found[name] += [] if seconds is None else [seconds]
    medians = {name: statistics.median(values) if values else None for name, values in found.items()}
    bare = medians["a step in a bare loop"]
    return [
        {"what": name, "figure": value, "unit": "s", "ratio": value / bare if value and bare else None}
        for name, value in medians.items()
    ]
