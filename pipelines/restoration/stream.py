"""The work on a window of items, on the cluster.

    [ read, decode ] -> [ Net_L -> Net_R ] -> [ encode, write ] -> rows for the ledger
      CPU tasks          actors with the        CPU tasks
                         model

A picture travels as one piece of work, a clip as runs of frames with those around them that restoring them
looks at, so that memory is bounded and many actors can share a clip; its encoded runs wait under
`_spair/staging` until all are there and are then joined. An error becomes part of the row it concerns and
never stops the stream.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import cv2
import pyarrow as pa
import ray
import ray.data

from pipelines.media import packed, unpacked
from pipelines.restoration.manifest import FAILED, PASSED
from pipelines.restoration.pieces import GIVEN_UP, UNUSABLE, Work, decode, encode
from pipelines.services import cluster, models
from pipelines.services.quarantine import GivenUpError, Quarantine, unforeseen
from spair_core import images, inference
from spair_core.footage import Window
from spair_core.panels import before_after
from spair_core.weights import WeightsError

if TYPE_CHECKING:
    from spair_core.network import Spair


class Stream:
    """The rows that come of a window of items, until it is to stop."""

    def __init__(self, work: Work, items: Sequence[dict[str, Any]]) -> None:
        """Start the work on these. A Ray cluster must be there."""
        self.quarantine = Quarantine(work.piece_seconds)
        self._rows: queue.Queue[dict[str, Any] | Exception | None] = queue.Queue(64)
        self._results = _results(work, items, self.quarantine)
        self._ended = threading.Event()
        threading.Thread(target=self._pull, daemon=True).start()

    def rows(self, seconds: float | None = None) -> Iterator[dict[str, Any]]:
        """What is finished, as it comes, for so many seconds at most. Raises RuntimeError where the cluster
        breaks."""
        until = None if seconds is None else time.monotonic() + seconds
        while until is None or time.monotonic() < until:
            try:
                row = self._rows.get(timeout=0.5)
            except queue.Empty:
                continue
            if row is None:
                return
            if isinstance(row, ray.exceptions.RayError):
                raise RuntimeError(
                    f"the stream broke: {row}\nwhat is done is kept; start the job again"
                ) from row
            if isinstance(row, Exception):
                raise row
            yield row

    def in_hand(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Take nothing more up, and give what is in hand and done in so many seconds."""
        self.quarantine.give_up()
        try:
            yield from self.rows(seconds)
        finally:
            self._ended.set()

    def _pull(self) -> None:
        try:
            # Without prefetching rows are had when they are there; else they wait for those after them.
            blocks = self._results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
            for row in chain.from_iterable(block.to_pylist() for block in blocks):
                while not self._ended.is_set():
                    try:
                        self._rows.put(row, timeout=0.5)
                        break
                    except queue.Full:
                        continue
                if self._ended.is_set():
                    return
            self._rows.put(None)
        except Exception as error:  # noqa: BLE001 (raised where the rows are taken, who would wait for ever)
            self._rows.put(error)


def _results(work: Work, items: Sequence[dict[str, Any]], quarantine: Quarantine) -> ray.data.Dataset:
    actors = cluster.actors(work.actors, gpus=work.num_gpus)
    actor_cpus, task_cpus = cluster.cpu_shares(actors, gpus=work.num_gpus)
    tasks = list(cluster.tasks_of([item["size"] for item in items]))
    stream = ray.data.from_blocks([pa.Table.from_pylist(list(items[some])) for some in tasks])
    stream.context.target_max_block_size = cluster.BLOCK_BYTES
    slim = replace(work, model=b"")
    reading = {"encoding": work.encoding, "quarantine": quarantine}
    return (
        stream.flat_map(decode, fn_kwargs=reading, num_cpus=task_cpus)
        .map_batches(
            _Restorer,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_kwargs={"work": work, "quarantine": quarantine},
            compute=ray.data.ActorPoolStrategy(min_size=min(actors, len(tasks)), max_size=actors),
            num_cpus=actor_cpus,
            num_gpus=work.num_gpus or None,
        )
        .map(encode, fn_kwargs={"work": slim, "quarantine": quarantine}, num_cpus=task_cpus)
    )


class _Restorer:
    """The actor: holds the model, and restores one picture or one run of frames a call."""

    def __init__(self, work: Work, quarantine: Quarantine) -> None:
        import torch  # the driver, which only names this class, need not wait for it

        self.unusable = ""
        try:
            self.model: Spair = models.load_here(work.model, work.precision)
        except WeightsError as error:  # told with the rows: Ray would retry, and print what it thinks of it
            self.unusable = str(error)
        cv2.setNumThreads(torch.get_num_threads())  # Ray holds torch to the actor's share of the machine
        self.work, self.quarantine = work, quarantine

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        for row in table.to_pylist():
            yield pa.Table.from_pylist([self.restored(row)])

    def restored(self, row: dict[str, Any]) -> dict[str, Any]:
        """A decoded row, restored."""
        row = {**row, "model_seconds": 0.0, "degraded_share": 0.0, "panel_png": b""}
        if row["error"] or row["verdict"] == PASSED:
            return row
        if self.unusable:
            return {**row, "error": self.unusable, "verdict": UNUSABLE}
        try:
            with self.quarantine.hold(f"restore {row['key']} {row['part']}"):
                return {**row, **self._restored(row)}
        except GivenUpError as error:
            return {**row, "error": str(error), "verdict": GIVEN_UP}
        except (RuntimeError, MemoryError, FloatingPointError) as error:
            # Out of memory, mostly: this item may work elsewhere, the others go on here.
            return {**row, "error": f"the model could not restore it: {error}", "verdict": FAILED}
        except Exception as error:  # noqa: BLE001 (it is this item's alone)
            return {**row, "error": f"the model could not restore it: {unforeseen(error)}", "verdict": FAILED}

    def _restored(self, row: dict[str, Any]) -> dict[str, Any]:
        piece = unpacked(row)
        started = time.monotonic()
        restored = inference.restore_window(
            self.model, piece.window, tile=self.work.tile, min_degraded=self.work.min_degraded
        )
        seconds = time.monotonic() - started
        panel = b""
        if row["panel"] and row["part"] == 0:
            shown = piece.window.pixels[piece.window.own[0]], restored.pixels[0]
            before, after = map(images.eight_bit, shown)
            panel = images.encode_png(before_after(before, after, restored.mask[0]))
        return {
            **packed(replace(piece, window=Window.alone(restored.pixels))),
            "model_seconds": seconds,
            "degraded_share": float(restored.mask.mean()),
            "panel_png": panel,
        }
