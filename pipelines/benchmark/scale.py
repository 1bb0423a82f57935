"""What a bucket of any size costs the driver: its plan, its verdicts and their commits, without the work.

A listing of so many objects is simulated; all else is what a restoration does, on a local disk or a store.
Each item is planned, gets a verdict, is journalled and committed; then the same is planned again, when all is
settled. Seconds, and the most memory that this process had. What handing out costs is measured by tasks that
do nothing, in the three stages of a restoration: how many small pictures, and how many runs of clips' frames,
a second they would be if the driver's core did nothing else.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data

from pipelines.restoration.manifest import RESTORED, Manifest, Verdict
from pipelines.restoration.plan import Planned, Selection, Terms, plan
from pipelines.restoration.restore import WINDOW
from pipelines.services import cluster
from pipelines.services.storage import StoredObject

TASKS = 400
"""Of as many small pictures as one is given, that are handed out,"""
CLIPS, RUNS = 4, 100
"""and clips, of so many runs of frames each."""
JOURNALLED = 500
"""Items between two parts of the journal."""
TERMS = Terms("m" * 64, "tile=1920 quality=source crf=18 preset=veryfast min_degraded=0.001")


@dataclass(frozen=True)
class ScaleConfig:
    """How many objects."""

    items: int = 100_000
    destination: str | None = None
    """Where the manifest goes; by default a folder that is removed again."""
    json: str | None = None
    """Write the rows here as well."""


def _listing(items: int) -> Iterator[StoredObject]:
    for number in range(items):
        key = f"cam{number // 10_000:05d}/{number:010d}.jpg"
        yield StoredObject(f"s3://raw/{key}", key, 300_000, f"{number:032x}")


def _verdict(planned: Planned) -> Verdict:
    item = planned.item
    return Verdict(
        item.key,
        planned.kind,
        RESTORED,
        source_uri=item.uri,
        source_identity=item.identity,
        source_digest=item.identity * 2,
        output_uri=f"s3://dry/{item.key}",
        output_digest=item.identity * 2,
        width=1280,
        height=720,
        frames=1,
        degraded_share=0.05,
        model_seconds=0.3,
        model_digest=TERMS.model_digest,
        options=TERMS.options,
        finished_at="2026-11-20T03:04:05.678+00:00",
    )


def _planned(items: int, book: Manifest) -> Iterator[Planned]:
    return plan(_listing(items), iter(book), Selection(), TERMS)


def _first(items: int, destination: str) -> float:
    """Seconds in commits; all else is in the whole."""
    book, committing = Manifest(destination), 0.0
    for number, planned in enumerate(_planned(items, book), 1):
        book.add(_verdict(planned))
        if number % JOURNALLED == 0:
            book.flush()
        if number % WINDOW == 0 or number == items:
            began = time.perf_counter()
            book.commit()
            committing += time.perf_counter() - began
    return committing


def _nothing(table: pa.Table) -> pa.Table:
    return table


class _Nothing:
    def __call__(self, table: pa.Table) -> pa.Table:
        return table


def _task(items: int) -> pa.Table:
    return pa.table({"key": ["a"] * items})


def _runs(_: pa.Table) -> Iterator[pa.Table]:
    """A clip's, each a block of its own, as those of large frames are."""
    for _ in range(RUNS):
        yield pa.table({"part": ["x" * 100]})


def _handed_out(blocks: list[pa.Table], first: Callable[[pa.Table], pa.Table | Iterator[pa.Table]]) -> float:
    """Rows a second of the driver's own time, of what the first stage makes of these."""
    cluster.connect()
    alike = {"batch_size": None, "batch_format": "pyarrow"}
    stream = ray.data.from_blocks(blocks)
    stream.context.target_max_block_size = _task(cluster.TASK_ITEMS).nbytes
    rows = (
        stream.map_batches(first, num_cpus=0.3, **alike)
        .map_batches(_Nothing, num_cpus=0.5, compute=ray.data.ActorPoolStrategy(size=1), **alike)
        .map_batches(_nothing, num_cpus=0.3, **alike)
    )
    began = time.process_time()  # of all its threads
    given = sum(len(batch) for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow"))
    return given / (time.process_time() - began)


def measure(config: ScaleConfig) -> list[dict[str, Any]]:
    """The rows."""
    with tempfile.TemporaryDirectory() as folder:
        destination = config.destination or folder
        began = time.perf_counter()
        committing = _first(config.items, destination)
        first = time.perf_counter() - began
        settled = sum(planned.settled for planned in _planned(config.items, Manifest(destination)))
        second = time.perf_counter() - began - first
    assert settled == config.items
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {
        f"{config.items:,} items: planned, given verdicts": (first, "s"),
        "of that, commits": (committing, "s"),
        "planned again, all settled": (second, "s"),
        "most memory": (most, "MB"),
        "handed out": (_handed_out([_task(cluster.TASK_ITEMS)] * TASKS, _nothing), "items/s"),
        "runs of clips handed out": (_handed_out([_task(1)] * CLIPS, _runs), "runs/s"),
    }
    return [
        {"what": what, "figure": figure, "unit": unit, "ratio": None}
        for what, (figure, unit) in found.items()
    ]
