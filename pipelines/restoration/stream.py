"""The work on a window of items, on the cluster.

    [ read, decode ] -> [ Net_L -> Net_R ] -> [ encode, write ] -> rows for the ledger
      CPU tasks          actors with the        CPU tasks
                         model

A picture travels as one piece of work, a clip as runs of frames with those around them that its frames'
references need, so that memory is bounded and many actors can share a clip; its encoded runs wait under
`_spair/staging` until all are there and are then joined. An error becomes part of the row it concerns and
never stops the stream.
"""

from __future__ import annotations

import hashlib
import queue
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import pyarrow as pa
import ray
import ray.data
import torch

from pipelines.media import NO_PIECE, Encoding, MediumError, Piece, medium, medium_in, packed, unpacked
from pipelines.restoration import manifest
from pipelines.restoration.manifest import FAILED, PASSED, REJECTED, RESTORED
from pipelines.services import cluster, models, storage
from pipelines.services.quarantine import GivenUpError, Quarantine, QuarantinedError
from pipelines.services.storage import StorageError
from spair_core import images, inference
from spair_core.footage import Reach, Window
from spair_core.network import lowered
from spair_core.panels import before_after
from spair_core.precision import Chosen, type_of

GIVEN_UP, UNCHANGED = "given up", "unchanged"
"""What a row says in a verdict's place: of work that was not begun when the run was to stop, and of an item
whose bytes are those that were settled before."""
GRACE_SECONDS = 20.0
"""For what is in hand when a run is to stop: schedulers kill 30 s after they have said so."""


@dataclass(frozen=True)
class Work:
    """What the work on a window takes beside its items."""

    destination: str
    model: bytes
    references: bool
    """Whether the model looks at neighbouring frames."""
    precision: Chosen
    tile: int
    min_degraded: float
    encoding: Encoding
    actors: int | Literal["auto"]
    num_gpus: float
    piece_seconds: float

    @property
    def staging(self) -> str:
        """Where the parts of items wait to be joined."""
        return storage.join(self.destination, manifest.FOLDER, "staging")


class Stream:
    """The rows that come of a window of items, until it is to stop."""

    def __init__(self, work: Work, items: Sequence[dict[str, Any]]) -> None:
        """Start the work on these. A Ray cluster must be there."""
        self.quarantine = Quarantine(work.piece_seconds)
        self._rows: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue(64)
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
            if isinstance(row, BaseException):
                raise RuntimeError(
                    f"the stream broke: {row}\nwhat is done is kept; start the job again"
                ) from row
            yield row

    def in_hand(self) -> Iterator[dict[str, Any]]:
        """Take nothing more up, and give what is in hand and done in time."""
        self.quarantine.give_up()
        yield from self.rows(GRACE_SECONDS)
        self._ended.set()

    def _pull(self) -> None:
        try:
            for row in self._results.iter_rows():
                while not self._ended.is_set():
                    try:
                        self._rows.put(row, timeout=0.5)
                        break
                    except queue.Full:
                        continue
                if self._ended.is_set():
                    return
            self._rows.put(None)
        except ray.exceptions.RayError as error:
            self._rows.put(error)


def _results(work: Work, items: Sequence[dict[str, Any]], quarantine: Quarantine) -> ray.data.Dataset:
    actors = cluster.actors(work.actors, gpus=work.num_gpus)
    actor_cpus, task_cpus = cluster.cpu_shares(actors, gpus=work.num_gpus)
    tasks = list(cluster.tasks_of([item["size"] for item in items]))
    stream = ray.data.from_arrow([pa.Table.from_pylist(list(items[some])) for some in tasks])
    stream.context.target_max_block_size = cluster.BLOCK_BYTES
    reach, slim = Reach() if work.references else None, replace(work, model=b"")
    return (
        stream.flat_map(_decode, fn_kwargs={"reach": reach, "quarantine": quarantine}, num_cpus=task_cpus)
        .map_batches(
            _Restorer,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_kwargs={"work": work, "quarantine": quarantine},
            compute=ray.data.ActorPoolStrategy(min_size=min(actors, len(tasks)), max_size=actors),
            num_cpus=actor_cpus,
            num_gpus=work.num_gpus or None,
        )
        .map(_encode, fn_kwargs={"work": slim, "quarantine": quarantine}, num_cpus=task_cpus)
    )


def _decode(item: dict[str, Any], reach: Reach | None, quarantine: Quarantine) -> Iterator[dict[str, Any]]:
    """An item's pieces of work, or one that says why there are none (or no more)."""
    base = {**item, "part": 0, "last": True, "error": "", "verdict": RESTORED, "digest": ""}
    base |= NO_PIECE
    part = 0
    pieces = _pieces(item, reach, base)
    try:
        while True:
            with quarantine.hold(f"decode {item['key']} {part}"):
                piece = next(pieces, None)
            if piece is None:
                break
            yield {**piece, "part": part}
            part += 1
    except GivenUpError:
        return
    except MediumError as error:
        yield {**base, "part": part, "error": str(error), "verdict": REJECTED}
    except (QuarantinedError, StorageError, OSError, MemoryError) as error:
        yield {**base, "part": part, "error": str(error), "verdict": FAILED}


def _pieces(item: dict[str, Any], reach: Reach | None, base: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of an item; the last is known as such when there is none after it."""
    with tempfile.TemporaryDirectory() as folder:
        local, digest = _fetched(item, folder)
        base = {**base, "digest": digest}
        if item["known_digest"] == digest:
            yield {**base, **NO_PIECE, "error": "its bytes were settled before", "verdict": UNCHANGED}
            return
        held: dict[str, Any] | None = None
        kind = medium_in(local)
        for piece in kind.read(local, reach):
            if held is not None:
                yield {**held, "last": False}
            held = {**base, **packed(piece), "kind": kind.name}
        nothing = {**NO_PIECE, "kind": kind.name, "verdict": PASSED, "notes": "it holds no pictures or clips"}
        yield held or {**base, **nothing}


def _fetched(item: dict[str, Any], folder: str) -> tuple[Path, str]:
    local = storage.fetch(item["uri"], folder, item.get("size"))
    with local.open("rb") as file:
        return local, hashlib.file_digest(file, "sha256").hexdigest()


class _Restorer:
    """The actor: holds the model, and restores one picture or one run of frames a call."""

    def __init__(self, work: Work, quarantine: Quarantine) -> None:
        self.model = lowered(models.load_here(work.model), type_of(work.precision))
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
        try:
            with self.quarantine.hold(f"restore {row['key']} {row['part']}"):
                return {**row, **self._restored(row)}
        except GivenUpError as error:
            return {**row, "error": str(error), "verdict": GIVEN_UP}
        except (RuntimeError, MemoryError, FloatingPointError) as error:
            # Out of memory, mostly: this item may work elsewhere, the others go on here.
            return {**row, "error": f"the model could not restore it: {error}", "verdict": FAILED}

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


def _encode(row: dict[str, Any], work: Work, quarantine: Quarantine) -> dict[str, Any]:
    """Write what a piece of work gave; what is left is small and goes to the ledger.

    A whole item in which nothing was found is copied; of one in parts that is known when all are there.
    """
    slim = {k: row[k] for k in ("key", "kind", "part", "last", "error", "verdict", "digest")}
    slim |= {k: row[k] for k in ("notes", "lost")}
    slim |= {k: row[k] for k in ("model_seconds", "degraded_share", "panel_png")}
    slim |= {"height": 0, "width": 0, "frames": 0, "output_digest": ""}
    if row["error"]:
        return slim
    piece = None if row["verdict"] == PASSED else unpacked(row)
    if piece is not None:
        slim |= dict(zip(("frames", "height", "width"), piece.window.pixels.shape, strict=False))
    try:
        with quarantine.hold(f"encode {row['key']} {row['part']}", to_the_end=True):
            if piece is None or (medium(row["kind"]).join is None and row["degraded_share"] == 0):
                storage.copy(row["uri"], storage.join(work.destination, row["key"]))
                return {**slim, "output_digest": row["digest"], "verdict": PASSED}
            return {**slim, "output_digest": _written(row, piece, work)}
    except (QuarantinedError, StorageError, OSError, ValueError) as error:
        return {**slim, "error": f"could not be written: {error}", "verdict": FAILED}


def _written(row: dict[str, Any], piece: Piece, work: Work) -> str:
    """Write the item, or a part of it that is yet to be joined; the digest of what was written."""
    kind, data = medium(row["kind"]), b""
    if row["degraded_share"] or not kind.copies:
        data = kind.write(piece.state, piece.window.pixels, work.encoding)
    whole = storage.join(work.destination, row["key"])
    storage.write_bytes(_part(work, row["key"], int(row["part"])) if kind.join else whole, data)
    return hashlib.sha256(data).hexdigest()


def _part(work: Work, key: str, part: int) -> str:
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    return storage.join(work.staging, name, f"{part:06d}")


@ray.remote(num_cpus=0.5, max_retries=2)
def join(work: Work, item: dict[str, Any], parts: int, passed: bool) -> tuple[str, str, str]:
    """Join an item's parts and write it, or copy it where it passed; its digest, or why that failed, and what
    could not be kept."""
    try:
        if passed:
            storage.copy(item["uri"], storage.join(work.destination, item["key"]))
            return "", "", ""
        with tempfile.TemporaryDirectory() as folder:
            local, _ = _fetched(item, folder)
            target = Path(folder) / f"restored{local.suffix}"
            data = (storage.read_bytes(_part(work, item["key"], part)) for part in range(parts))
            join = medium(item["kind"]).join
            assert join is not None
            notes = join(data, local, target)
            storage.upload(target, storage.join(work.destination, item["key"]))
            with target.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest(), "", "\n".join(notes)
    except (MediumError, StorageError, OSError) as error:
        return "", f"could not be joined: {error}", ""
