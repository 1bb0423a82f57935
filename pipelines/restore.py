"""A prefix of pictures and clips -> the same, restored, under the mirrored names.

    list -> plan -> [ read, decode ] -> [ Net_L -> Net_R ] -> [ encode, write ] -> verdict
                      CPU tasks          actors with the        CPU tasks           journal on
                                         model                                      the driver

A picture travels as one piece of work, a clip as runs of frames, so that memory is bounded and many
actors can share a clip; its encoded runs wait under `_spair/staging` until all are there and are then
joined. Every planned item ends in one verdict (see `manifest`). An error becomes part of the row it
concerns and never stops the stream.
"""

from __future__ import annotations

import hashlib
import posixpath
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from numpy.typing import NDArray

from pipelines import cluster, manifest, models, storage, tracking, video
from pipelines.manifest import FAILED, IGNORED, REJECTED, RESTORED, Manifest, Verdict
from pipelines.models import ResolvedModel
from pipelines.storage import StorageError, StoredObject
from pipelines.video import ClipError, EncodeConfig, FrameRun
from spair_core import images, inference, weights
from spair_core.images import PictureError
from spair_core.panels import before_after

PICTURE, CLIP, OTHER = "picture", "clip", "other"
BLOCK_BYTES = 48 << 20
"""Rows travel in blocks of about this size: one run of frames."""
BLOCKS = 512
FLUSH_SECONDS = 5.0
SPARE = 3
"""Items that may give a panel, for each that is kept: some of them may be broken."""


@dataclass(frozen=True)
class RestoreConfig:
    """What to restore, with what, and where to."""

    source: str
    """Folder or prefix of pictures and clips, such as s3://dashcams/2026-11-20."""
    destination: str
    """Where the restored ones go, under the same names."""
    model: str = "rain-light"
    """A file, a URI, models:/spair-rain@champion, or the name of shipped weights."""
    actors: int = 1
    """Processes that hold the model."""
    num_gpus: float = 0.0
    """GPUs of each of them (a fraction shares one); 0 computes on CPUs."""
    tile: int = 1024
    """Larger pictures are restored in overlapping tiles with sides of so many pixels."""
    quality: int = 95
    """JPEG and lossy WebP quality of restored pictures."""
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    limit: int | None = None
    """Look at only so many items, the first by name."""
    max_rejected_share: float = 0.5
    """More rejected items than this share make the job fail at its end."""
    panels: int = 4
    """Before/after pictures to keep."""
    experiment: str = "spair-restoration"
    """MLflow experiment."""

    def __post_init__(self) -> None:
        if self.tile < 2 * inference.OVERLAP:
            raise ValueError(f"tile must be at least {2 * inference.OVERLAP} pixels, not {self.tile}")
        if not 1 <= self.quality <= 100 or self.actors < 1:
            raise ValueError("quality is a number from 1 to 100, actors at least 1")

    @property
    def options(self) -> str:
        """Everything beside model and source that the output depends on."""
        return f"tile={self.tile} quality={self.quality} crf={self.encode.crf} preset={self.encode.preset}"


@dataclass
class Summary:
    """What became of the items of a run."""

    verdicts: list[Verdict] = field(default_factory=list)
    already: int = 0
    manifest: str = ""
    seconds: float = 0.0

    def count(self, verdict: str) -> int:
        """Items of this run with a verdict."""
        return Counter(item.verdict for item in self.verdicts)[verdict]

    @property
    def rejected_share(self) -> float:
        """Of the pictures and clips of this run."""
        looked_at = len(self.verdicts) - self.count(IGNORED)
        return self.count(REJECTED) / looked_at if looked_at else 0.0

    def metrics(self) -> dict[str, float]:
        """For MLflow."""
        done = [item for item in self.verdicts if item.verdict == RESTORED]
        pixels = sum(item.width * item.height * max(item.frames, 1) for item in done)
        return {
            **{verdict: float(self.count(verdict)) for verdict in manifest.VERDICTS},
            "already_done": float(self.already),
            "frames": float(sum(item.frames for item in done)),
            "megapixels": pixels / 1e6,
            "degraded_share": float(np.mean([item.degraded_share for item in done])) if done else 0.0,
            "model_seconds": sum(item.model_seconds for item in done),
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        lines = [
            f"{item.verdict}: {item.key}: {item.reason}" for item in self.verdicts if item.verdict != RESTORED
        ]
        counts = ", ".join(f"{self.count(verdict)} {verdict}" for verdict in manifest.VERDICTS)
        lines.append(f"{counts}; {self.already} done before; {self.seconds:.1f} s")
        lines.append(f"manifest: {self.manifest}")
        return "\n".join(lines)


def restore(config: RestoreConfig) -> Summary:
    """Restore all that is under `source` and has not been, and commit the manifest.

    Raises ValueError (source and destination overlap), ModelError, StorageError, TrackingError before
    any work; what happens to single items is in the summary.
    """
    _check_apart(config.source, config.destination)
    model = models.resolve(config.model)
    book = Manifest(config.destination)
    started = time.monotonic()
    todo, summary = _plan(config, model, book)
    summary.manifest = book.uri
    with tracking.run(config.experiment, config.destination) as run:
        run.log_params(asdict(config) | {"model_uri": model.uri, "model_digest": model.digest})
        if todo:
            _stream(config, model, todo, book, summary, run)
        book.commit()
        storage.delete(_staging(config))
        summary.seconds = time.monotonic() - started
        run.log_metrics(summary.metrics())
        run.log_bytes("manifest.parquet", storage.read_bytes(book.uri))
        run.set_tags({"spair.manifest": book.uri})
    return summary


def _check_apart(source: str, destination: str) -> None:
    a, b = (f"{storage.resolve(uri)[1].rstrip('/')}/" for uri in (source, destination))
    if a.startswith(b) or b.startswith(a):
        raise ValueError(f"{source} and {destination} overlap: restored items would be read again as sources")


def _staging(config: RestoreConfig) -> str:
    return storage.join(config.destination, manifest.FOLDER, "staging")


def kind_of(key: str) -> str:
    """`picture`, `clip` or `other`, by the ending of a name."""
    suffix = posixpath.splitext(key)[1].lower()
    return PICTURE if suffix in images.SUFFIXES else CLIP if suffix in video.SUFFIXES else OTHER


def _plan(
    config: RestoreConfig, model: ResolvedModel, book: Manifest
) -> tuple[list[dict[str, Any]], Summary]:
    """The items to do; what has been done and what is none of ours is settled here."""
    todo: list[dict[str, Any]] = []
    summary = Summary()
    for number, item in enumerate(storage.list_objects(config.source)):
        if config.limit is not None and number >= config.limit:
            break
        known, kind = book.get(item.key), kind_of(item.key)
        if known is not None and known.settles(item.identity, model.digest, config.options):
            summary.already += 1
        elif kind == OTHER:
            verdict = _verdict(item, OTHER, IGNORED, "neither a picture nor a clip by its ending")
            book.add(verdict)
            summary.verdicts.append(verdict)
        else:
            todo.append({"key": item.key, "uri": item.uri, "identity": item.identity, "kind": kind})
    by_chance = sorted(todo, key=lambda item: hashlib.sha256(item["key"].encode()).digest())
    shown = {item["key"] for item in by_chance[: SPARE * config.panels]}
    return [{**item, "panel": item["key"] in shown} for item in todo], summary


def _verdict(item: StoredObject, kind: str, verdict: str, reason: str) -> Verdict:
    return Verdict(
        item.key, kind, verdict, reason, source_uri=item.uri, source_identity=item.identity,
        finished_at=manifest.now(),
    )  # fmt: skip


def _stream(
    config: RestoreConfig,
    model: ResolvedModel,
    todo: list[dict[str, Any]],
    book: Manifest,
    summary: Summary,
    run: tracking.Run,
) -> None:
    cluster.connect()
    actor_cpus, task_cpus = cluster.cpu_shares(config.actors, gpus=config.num_gpus)
    stream = ray.data.from_items(todo, override_num_blocks=min(len(todo), BLOCKS))
    stream.context.target_max_block_size = BLOCK_BYTES
    results = (
        stream.flat_map(_decode, num_cpus=task_cpus)
        .map(
            _Restorer,
            fn_constructor_kwargs={"model": model.data, "tile": config.tile},
            compute=ray.data.ActorPoolStrategy(size=config.actors),
            num_cpus=actor_cpus,
            num_gpus=config.num_gpus or None,
        )
        .map(_encode, fn_kwargs={"config": config}, num_cpus=task_cpus)
    )
    ledger = _Ledger(config, model, todo, book, summary, run)
    try:
        for row in results.iter_rows():
            ledger.take(row)
    except ray.exceptions.RayError as error:
        book.flush()
        raise RuntimeError(f"the stream broke: {error}\nwhat is done is kept; start the job again") from error
    ledger.finish()


def _decode(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An item's pieces of work, or one that says why there are none (or no more)."""
    base = {**item, "part": 0, "last": True, "error": "", "verdict": RESTORED, "digest": ""}
    part = 0
    try:
        if item["kind"] == PICTURE:
            data = storage.read_bytes(item["uri"])
            pixels = images.decode(data).pixels[None]
            yield {**base, **_packed(pixels), "source": data, "digest": hashlib.sha256(data).hexdigest()}
            return
        with tempfile.TemporaryDirectory() as folder:
            local, digest = _fetched(item, folder)
            held: FrameRun | None = None
            for frames in video.read_runs(local):
                if held is not None:
                    yield {**base, **_packed(held.pixels), **_timing(held), "part": part, "last": False}
                    part += 1
                held = frames
            if held is not None:
                yield {**base, **_packed(held.pixels), **_timing(held), "part": part, "digest": digest}
    except (PictureError, ClipError) as error:
        yield {**base, "part": part, "error": str(error), "verdict": REJECTED}
    except (StorageError, OSError, MemoryError) as error:
        yield {**base, "part": part, "error": str(error), "verdict": FAILED}


def _fetched(item: dict[str, Any], folder: str) -> tuple[Path, str]:
    local = Path(folder) / f"clip{posixpath.splitext(item['key'])[1]}"
    storage.download(item["uri"], local)
    with local.open("rb") as file:
        return local, hashlib.file_digest(file, "sha256").hexdigest()


def _packed(pixels: NDArray[np.uint8]) -> dict[str, Any]:
    return {"pixels": pixels.tobytes(), "shape": list(pixels.shape)}


def _unpacked(row: dict[str, Any], name: str = "pixels") -> NDArray[np.uint8]:
    return np.frombuffer(row[name], np.uint8).reshape([int(side) for side in row["shape"]])


def _timing(run: FrameRun) -> dict[str, Any]:
    form = run.format
    return {
        "pts": list(run.pts),
        "codec": form.codec,
        "ratios": [n for r in (form.time_base, form.rate, form.aspect) for n in (r.numerator, r.denominator)],
        "rotation": form.rotation,
        "colour": [form.bt709, form.full_range],
    }


class _Restorer:
    """The actor: holds the model, and restores one picture or one run of frames a call."""

    def __init__(self, model: bytes, tile: int) -> None:
        self.model = weights.load(model)[0]
        self.tile = tile
        if torch.cuda.is_available() and ray.get_gpu_ids():
            self.model = self.model.to("cuda")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["error"]:
            return {**row, "model_seconds": 0.0, "degraded_share": 0.0, "panel_png": b""}
        before = _unpacked(row)
        started = time.monotonic()
        try:
            pieces = [inference.restore(self.model, frame[None], tile=self.tile) for frame in before]
        except (RuntimeError, MemoryError) as error:
            # Out of memory, mostly: this item may work elsewhere, the others go on here.
            reason = f"the model could not restore it: {error}"
            return {
                **row,
                "error": reason,
                "verdict": FAILED,
                "model_seconds": 0.0,
                "degraded_share": 0.0,
                "panel_png": b"",
            }
        seconds = time.monotonic() - started
        panel = b""
        if row["panel"] and row["part"] == 0:
            panel = images.encode_png(before_after(before[0], pieces[0].pixels[0], pieces[0].mask[0]))
        return {
            **row,
            "pixels": b"".join(piece.pixels.tobytes() for piece in pieces),
            "model_seconds": seconds,
            "degraded_share": float(np.mean([piece.mask.mean() for piece in pieces])),
            "panel_png": panel,
        }


def _encode(row: dict[str, Any], config: RestoreConfig) -> dict[str, Any]:
    """Write what a piece of work gave; what is left is small and goes to the ledger."""
    slim = {k: row[k] for k in ("key", "kind", "part", "last", "error", "verdict", "digest")}
    slim |= {k: row[k] for k in ("model_seconds", "degraded_share", "panel_png")}
    slim |= {"height": 0, "width": 0, "frames": 0, "rotation": 0, "output_digest": ""}
    if row["error"]:
        return slim
    pixels = _unpacked(row)
    slim |= {"frames": pixels.shape[0], "height": pixels.shape[1], "width": pixels.shape[2]}
    try:
        if row["kind"] == PICTURE:
            picture = images.decode(row["source"]).with_pixels(pixels[0])
            data = images.encode(picture, quality=config.quality)
            storage.write_bytes(storage.join(config.destination, row["key"]), data)
            return {**slim, "output_digest": hashlib.sha256(data).hexdigest()}
        run = FrameRun(pixels, tuple(int(stamp) for stamp in row["pts"]), _clip_format(row))
        storage.write_bytes(
            _segment(config, row["key"], int(row["part"])), video.encode_run(run, config.encode)
        )
        return {**slim, "rotation": int(row["rotation"])}
    except (StorageError, OSError, ValueError) as error:
        return {**slim, "error": f"could not be written: {error}", "verdict": FAILED}


def _clip_format(row: dict[str, Any]) -> video.ClipFormat:
    numbers = [int(number) for number in row["ratios"]]
    time_base, rate, aspect = (Fraction(*numbers[i : i + 2]) for i in (0, 2, 4))
    bt709, full_range = (bool(flag) for flag in row["colour"])
    return video.ClipFormat(row["codec"], time_base, rate, aspect, int(row["rotation"]), bt709, full_range)


def _segment(config: RestoreConfig, key: str, part: int) -> str:
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    return storage.join(_staging(config), name, f"{part:06d}.nut")


@ray.remote(num_cpus=0.5, max_retries=2)
def _join(config: RestoreConfig, item: dict[str, Any], parts: int, rotation: int) -> tuple[str, str]:
    """Join a clip's segments and write it; the output's digest, or why that failed."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            local, _ = _fetched(item, folder)
            target = Path(folder) / f"restored{local.suffix}"
            segments = (storage.read_bytes(_segment(config, item["key"], part)) for part in range(parts))
            video.join(segments, local, target, rotation)
            storage.upload(target, storage.join(config.destination, item["key"]))
            with target.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest(), ""
    except (ClipError, StorageError, OSError) as error:
        return "", f"could not be joined: {error}"


@dataclass
class _Open:
    """A clip of which pieces have come in."""

    parts: dict[int, dict[str, Any]] = field(default_factory=dict)
    total: int | None = None


class _Ledger:
    """On the driver: turns finished pieces into verdicts, journals them, and shows progress."""

    def __init__(
        self,
        config: RestoreConfig,
        model: ResolvedModel,
        todo: list[dict[str, Any]],
        book: Manifest,
        summary: Summary,
        run: tracking.Run,
    ) -> None:
        self.config, self.model, self.book, self.summary, self.run = config, model, book, summary, run
        self.items = {item["key"]: item for item in todo}
        self.open: dict[str, _Open] = {}
        self.joins: dict[ray.ObjectRef, tuple[str, dict[str, Any]]] = {}
        self.settled: set[str] = set()
        self.panels = 0
        self.started = self.flushed = time.monotonic()

    def take(self, row: dict[str, Any]) -> None:
        """One finished piece."""
        key = row["key"]
        if row["panel_png"] and self.panels < self.config.panels:
            self._keep_panel(key, row["panel_png"])
        if key not in self.settled:
            if row["error"] or row["kind"] == PICTURE:
                self._settle(key, row)
            else:
                self._take_part(key, row)
        self._poll(timeout=0)
        self._tick()

    def finish(self) -> None:
        """Wait for the last clips; whatever has no verdict by then gets one."""
        while self.joins:
            self._poll(timeout=2)
            self._tick()
        for key, item in self.items.items():
            if key not in self.settled:
                self._settle(
                    key, {**_NOTHING, "kind": item["kind"], "verdict": FAILED, "error": "its work was lost"}
                )
        self._tick(now=True)

    def _take_part(self, key: str, row: dict[str, Any]) -> None:
        clip = self.open.setdefault(key, _Open())
        clip.parts[int(row["part"])] = row
        if row["last"]:
            clip.total = int(row["part"]) + 1
        if clip.total == len(clip.parts):
            del self.open[key]
            totals = _totals(list(clip.parts.values()))
            ref = _join.remote(self.config, self.items[key], clip.total, totals["rotation"])
            self.joins[ref] = (key, totals)

    def _poll(self, timeout: float) -> None:
        if not self.joins:
            return
        ready, _ = ray.wait(list(self.joins), num_returns=len(self.joins), timeout=timeout)
        for ref in ready:
            key, totals = self.joins.pop(ref)
            try:
                digest, error = ray.get(ref)
            except ray.exceptions.RayError as failure:
                digest, error = "", f"could not be joined: {failure}"
            self._settle(
                key,
                {**totals, "output_digest": digest, "error": error, "verdict": FAILED if error else RESTORED},
            )

    def _settle(self, key: str, row: dict[str, Any]) -> None:
        item = self.items[key]
        self.settled.add(key)
        self.open.pop(key, None)
        restored = row["verdict"] == RESTORED
        verdict = Verdict(
            key=key,
            kind=item["kind"],
            verdict=row["verdict"],
            reason=row["error"],
            source_uri=item["uri"],
            source_identity=item["identity"],
            source_digest=row["digest"],
            output_uri=storage.join(self.config.destination, key) if restored else "",
            output_digest=row["output_digest"],
            width=int(row["width"]),
            height=int(row["height"]),
            frames=int(row["frames"]),
            degraded_share=float(row["degraded_share"]),
            model_seconds=float(row["model_seconds"]),
            model_digest=self.model.digest,
            options=self.config.options,
            finished_at=manifest.now(),
        )
        self.book.add(verdict)
        self.summary.verdicts.append(verdict)

    def _keep_panel(self, key: str, png: bytes) -> None:
        self.panels += 1
        name = f"{key.replace('/', '_')}.png"
        storage.write_bytes(storage.join(self.config.destination, manifest.FOLDER, "panels", name), png)
        self.run.log_bytes(f"panels/{name}", png)

    def _tick(self, *, now: bool = False) -> None:
        if not now and time.monotonic() - self.flushed < FLUSH_SECONDS:
            return
        self.book.flush()
        self.flushed = time.monotonic()
        done, rate = len(self.settled), len(self.settled) / (self.flushed - self.started)
        left = f", {(len(self.items) - done) / rate:.0f} s left" if rate and done < len(self.items) else ""
        counts = ", ".join(f"{self.summary.count(v)} {v}" for v in (RESTORED, REJECTED, FAILED))
        print(f"{done}/{len(self.items)} items: {counts}; {rate:.2f}/s{left}", file=sys.stderr, flush=True)


_NOTHING = {
    "digest": "",
    "output_digest": "",
    "width": 0,
    "height": 0,
    "frames": 0,
    "degraded_share": 0.0,
    "model_seconds": 0.0,
}


def _totals(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """A clip's row from those of its runs."""
    frames = sum(int(part["frames"]) for part in parts)
    last = max(parts, key=lambda part: int(part["part"]))
    return {
        **last,
        "frames": frames,
        "model_seconds": sum(float(part["model_seconds"]) for part in parts),
        "degraded_share": sum(float(part["degraded_share"]) * int(part["frames"]) for part in parts) / frames,
        "rotation": int(parts[0]["rotation"]),
    }
