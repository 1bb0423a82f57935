"""A prefix of pictures and clips -> the same, restored, under the mirrored names.

    list -> plan -> [ read, decode ] -> [ Net_L -> Net_R ] -> [ encode, write ] -> verdict
                      CPU tasks          actors with the        CPU tasks           journal on
                                         model                                      the driver

A picture travels as one piece of work, a clip as runs of frames with those around them that its frames'
references need, so that memory is bounded and many actors can share a clip; its encoded runs wait under
`_spair/staging` until all are there and are then joined. Every planned item ends in one verdict (see
`manifest`). An error becomes part of the row it concerns and never stops the stream.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.data
import torch

from pipelines.media import (
    EncodeConfig,
    Encoding,
    MediumError,
    Piece,
    medium,
    medium_in,
    medium_of,
    packed,
    unpacked,
)
from pipelines.restoration import manifest
from pipelines.restoration.ledger import Ledger, Summary, Terms
from pipelines.restoration.manifest import (
    FAILED,
    IGNORED,
    OTHER,
    PASSED,
    REJECTED,
    RESTORED,
    Manifest,
    Verdict,
)
from pipelines.services import cluster, models, storage, tracking
from pipelines.services.models import ResolvedModel
from pipelines.services.quarantine import Quarantine, QuarantinedError
from pipelines.services.storage import StorageError, StoredObject
from spair_core import images, inference
from spair_core.footage import Reach, Window
from spair_core.network import lowered
from spair_core.panels import before_after
from spair_core.precision import Chosen, Precision, chosen, type_of

SPARE = 3
"""Items that may give a panel, for each that is kept: some of them may be broken."""


@dataclass(frozen=True)
class RestoreConfig:
    """What to restore, with what, and where to."""

    source: str
    """Folder or prefix of pictures and clips, such as s3://dashcams/2026-11-20."""
    destination: str
    """Where the restored ones go, under the same names."""
    model: str = "footage-light"
    """A file, a URI, models:/spair-rain@champion, or the name of shipped weights."""
    actors: int = 1
    """Processes that hold the model."""
    num_gpus: float = 0.0
    """GPUs of each of them (a fraction shares one); 0 computes on CPUs."""
    precision: Precision = "auto"
    """Of the networks' weights and products. auto is bfloat16 where the actors' processors (as this one's) or
    GPUs have it, which is faster, and float32 elsewhere. What was restored in another is restored again."""
    tile: int = inference.TILE
    """Larger pictures are restored in overlapping tiles with sides of so many pixels."""
    quality: int | None = None
    """Quality of restored JPEG, WebP and AVIF pictures, 1 to 100; by default a JPEG's own tables."""
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    min_degraded: float = inference.MIN_DEGRADED
    """A picture or frame of which a smaller share is degraded is left alone; an item that has none to restore
    is copied byte for byte, with the verdict passed."""
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
        if (self.quality is not None and not 1 <= self.quality <= 100) or self.actors < 1:
            raise ValueError("quality is a number from 1 to 100, actors at least 1")
        if not 0 <= self.min_degraded <= 1:
            raise ValueError(f"min_degraded is a share, from 0 to 1, not {self.min_degraded}")

    @property
    def options(self) -> str:
        """Everything beside model and source that the output depends on."""
        quality = self.quality or "source"
        options = (
            f"tile={self.tile} quality={quality} crf={self.encode.crf} preset={self.encode.preset} "
            f"min_degraded={self.min_degraded:g}"
        )
        # Manifests from before there was a choice do not name it.
        return options if self.precision == "float32" else f"{options} precision={self.precision}"


def restore(config: RestoreConfig) -> Summary:
    """Restore all that is under `source` and has not been, and commit the manifest.

    Raises ValueError (source and destination overlap), ModelError, StorageError, TrackingError before
    any work; what happens to single items is in the summary.
    """
    _check_apart(config.source, config.destination)
    config = _decided(config)
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


def _decided(config: RestoreConfig) -> RestoreConfig:
    """The same with its precision chosen: by this machine's processor, or by a GPU such as actors get."""
    if config.precision == "auto" and config.num_gpus:
        cluster.connect()
        choice = ray.get(_gpus_choice.options(num_gpus=config.num_gpus).remote())
        return replace(config, precision=choice)
    return replace(config, precision=chosen(config.precision, torch.device("cpu")))


@ray.remote(num_cpus=0)
def _gpus_choice() -> Chosen:
    return chosen("auto", torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _staging(config: RestoreConfig) -> str:
    return storage.join(config.destination, manifest.FOLDER, "staging")


def _plan(
    config: RestoreConfig, model: ResolvedModel, book: Manifest
) -> tuple[list[dict[str, Any]], Summary]:
    """The items to do; what has been done and what is none of ours is settled here."""
    todo: list[dict[str, Any]] = []
    summary = Summary()
    for number, item in enumerate(storage.list_objects(config.source)):
        if config.limit is not None and number >= config.limit:
            break
        known, kind = book.get(item.key), medium_of(item.key)
        if known is not None and known.settles(item.identity, model.digest, config.options):
            summary.already += 1
        elif kind is None:
            verdict = _verdict(item, OTHER, IGNORED, "neither a picture nor a clip by its ending")
            book.add(verdict)
            summary.verdicts.append(verdict)
        else:
            todo.append({"key": item.key, "uri": item.uri, "identity": item.identity, "kind": kind.name})
    by_chance = sorted(todo, key=lambda item: hashlib.sha256(item["key"].encode()).digest())
    shown = {item["key"] for item in by_chance[: SPARE * config.panels]}
    return [{**item, "panel": item["key"] in shown} for item in todo], summary


def _verdict(item: StoredObject, kind: str, verdict: str, reason: str) -> Verdict:
    return Verdict(
        item.key, kind, verdict, reason, source_uri=item.uri, source_identity=item.identity,
        finished_at=tracking.now(),
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
    quarantine = Quarantine()
    stream = ray.data.from_items(todo, override_num_blocks=min(len(todo), cluster.BLOCKS))
    stream.context.target_max_block_size = cluster.BLOCK_BYTES
    reach = Reach() if model.card.network.references else None
    results = (
        stream.flat_map(_decode, fn_kwargs={"reach": reach, "quarantine": quarantine}, num_cpus=task_cpus)
        .map(
            _Restorer,
            fn_constructor_kwargs={
                "model": model.data,
                "precision": config.precision,
                "tile": config.tile,
                "min_degraded": config.min_degraded,
                "quarantine": quarantine,
            },
            compute=ray.data.ActorPoolStrategy(size=config.actors),
            num_cpus=actor_cpus,
            num_gpus=config.num_gpus or None,
        )
        .map(_encode, fn_kwargs={"config": config, "quarantine": quarantine}, num_cpus=task_cpus)
    )
    terms = Terms(config.destination, config.options, model.digest, config.panels)
    ledger = Ledger(terms, todo, book, summary, run, partial(_join.remote, config))
    try:
        for row in results.iter_rows():
            ledger.take(row)
    except ray.exceptions.RayError as error:
        book.flush()
        raise RuntimeError(f"the stream broke: {error}\nwhat is done is kept; start the job again") from error
    ledger.finish()


def _decode(item: dict[str, Any], reach: Reach | None, quarantine: Quarantine) -> Iterator[dict[str, Any]]:
    """An item's pieces of work, or one that says why there are none (or no more)."""
    base = {**item, "part": 0, "last": True, "error": "", "verdict": RESTORED, "digest": ""}
    base |= {"notes": "", "lost": ""}
    part = 0
    try:
        with quarantine.hold(f"decode {item['key']}"):
            for piece in _pieces(item, reach):
                yield {**base, **piece, "part": part}
                part += 1
    except MediumError as error:
        yield {**base, "part": part, "error": str(error), "verdict": REJECTED}
    except (QuarantinedError, StorageError, OSError, MemoryError) as error:
        yield {**base, "part": part, "error": str(error), "verdict": FAILED}


def _pieces(item: dict[str, Any], reach: Reach | None) -> Iterator[dict[str, Any]]:
    """What sets the pieces of an item apart; the last is known as such when there is none after it."""
    with tempfile.TemporaryDirectory() as folder:
        local, digest = _fetched(item, folder)
        held: dict[str, Any] | None = None
        kind = medium_in(local)
        for piece in kind.read(local, reach):
            if held is not None:
                yield {**held, "last": False}
            held = {**packed(piece), "kind": kind.name}
        if held is not None:
            yield {**held, "digest": digest}


def _fetched(item: dict[str, Any], folder: str) -> tuple[Path, str]:
    local = storage.fetch(item["uri"], folder)
    with local.open("rb") as file:
        return local, hashlib.file_digest(file, "sha256").hexdigest()


class _Restorer:
    """The actor: holds the model, and restores one picture or one run of frames a call."""

    def __init__(
        self, model: bytes, precision: Chosen, tile: int, min_degraded: float, quarantine: Quarantine
    ) -> None:
        self.model = lowered(models.load_here(model), type_of(precision))
        self.tile, self.min_degraded, self.quarantine = tile, min_degraded, quarantine

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        row = {**row, "model_seconds": 0.0, "degraded_share": 0.0, "panel_png": b""}
        if row["error"]:
            return row
        try:
            with self.quarantine.hold(f"restore {row['key']} {row['part']}"):
                return {**row, **self._restored(row)}
        except (RuntimeError, MemoryError) as error:
            # Out of memory, mostly: this item may work elsewhere, the others go on here.
            return {**row, "error": f"the model could not restore it: {error}", "verdict": FAILED}

    def _restored(self, row: dict[str, Any]) -> dict[str, Any]:
        piece = unpacked(row)
        started = time.monotonic()
        restored = inference.restore_window(
            self.model, piece.window, tile=self.tile, min_degraded=self.min_degraded
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


def _encode(row: dict[str, Any], config: RestoreConfig, quarantine: Quarantine) -> dict[str, Any]:
    """Write what a piece of work gave; what is left is small and goes to the ledger.

    A whole item in which nothing was found is copied; of one in parts that is known when all are there.
    """
    slim = {k: row[k] for k in ("key", "kind", "part", "last", "error", "verdict", "digest")}
    slim |= {k: row[k] for k in ("notes", "lost")}
    slim |= {k: row[k] for k in ("model_seconds", "degraded_share", "panel_png")}
    slim |= {"height": 0, "width": 0, "frames": 0, "output_digest": ""}
    if row["error"]:
        return slim
    piece = unpacked(row)
    frames, height, width = piece.window.pixels.shape[:3]
    slim |= {"frames": frames, "height": height, "width": width}
    try:
        with quarantine.hold(f"encode {row['key']} {row['part']}"):
            if medium(row["kind"]).join is None and row["degraded_share"] == 0:
                storage.copy(row["uri"], storage.join(config.destination, row["key"]))
                return {**slim, "output_digest": row["digest"], "verdict": PASSED}
            return {**slim, "output_digest": _written(row, piece, config)}
    except (QuarantinedError, StorageError, OSError, ValueError) as error:
        return {**slim, "error": f"could not be written: {error}", "verdict": FAILED}


def _written(row: dict[str, Any], piece: Piece, config: RestoreConfig) -> str:
    """Write the item, or a part of it that is yet to be joined; the digest of what was written."""
    kind, data = medium(row["kind"]), b""
    if row["degraded_share"] or not kind.copies:
        data = kind.write(piece.state, piece.window.pixels, Encoding(config.quality, config.encode))
    whole = storage.join(config.destination, row["key"])
    storage.write_bytes(_part(config, row["key"], int(row["part"])) if kind.join else whole, data)
    return hashlib.sha256(data).hexdigest()


def _part(config: RestoreConfig, key: str, part: int) -> str:
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    return storage.join(_staging(config), name, f"{part:06d}")


@ray.remote(num_cpus=0.5, max_retries=2)
def _join(config: RestoreConfig, item: dict[str, Any], parts: int, passed: bool) -> tuple[str, str, str]:
    """Join an item's parts and write it, or copy it where it passed; its digest, or why that failed, and what
    could not be kept."""
    try:
        if passed:
            storage.copy(item["uri"], storage.join(config.destination, item["key"]))
            return "", "", ""
        with tempfile.TemporaryDirectory() as folder:
            local, _ = _fetched(item, folder)
            target = Path(folder) / f"restored{local.suffix}"
            data = (storage.read_bytes(_part(config, item["key"], part)) for part in range(parts))
            join = medium(item["kind"]).join
            assert join is not None
            notes = join(data, local, target)
            storage.upload(target, storage.join(config.destination, item["key"]))
            with target.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest(), "", "\n".join(notes)
    except (MediumError, StorageError, OSError) as error:
        return "", f"could not be joined: {error}", ""
