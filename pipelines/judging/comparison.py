"""Two models on footage, of which no truth is known: what each finds and changes, and how they differ.

    list -> [ read, decode ] -> [ every model on the same picture ] -> summary, panels
             CPU tasks            actors that hold the models           on the driver

Of a clip, frames are looked at. What cannot be read is listed with its reason.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from pipelines.judging import clips, evaluation
from pipelines.judging.contenders import Look, measured, picture_row, sorted_out
from pipelines.judging.evaluation import EvaluateConfig
from pipelines.media import MediumError, Piece, medium, medium_of
from pipelines.services import cluster, locations, models, storage, tracking
from pipelines.services.models import ModelError, ResolvedModel
from pipelines.services.quarantine import Quarantine, QuarantinedError, unforeseen
from pipelines.services.storage import StorageError
from spair_core import images, inference
from spair_core.footage import Reach, Window
from spair_core.panels import overlay, side_by_side

DIFFERENCE_GAIN = 8
"""Panels show the difference of two results so many times as strong."""
QUANTILES = (0.1, 0.5, 0.9)
QUANTILE_NAMES = ("degraded_p10", "degraded_p50", "degraded_p90")


@dataclass(frozen=True)
class CompareConfig:
    """Two models, and the footage to see them on."""

    champion: str
    """The model in use: models:/spair-rain@champion, a file, a URI, or the name of shipped weights."""
    challenger: str
    """The one that might replace it, such as models:/spair-rain/7."""
    data: str
    """Folder or prefix of pictures and clips, such as s3://dashcams/2026-11-20."""
    limit: int | None = 200
    """Look at no more pictures and frames than that, drawn by their names' digests; None looks at all."""
    frame_step: int = 30
    """Of a clip, look at one frame in so many."""
    actors: int = 1
    """Processes that hold both models."""
    num_gpus: float = 0.0
    """GPUs of each of them; 0 computes on CPUs."""
    tile: int = inference.TILE
    """Larger pictures go through in overlapping tiles."""
    steady_clips: int = 4
    """So many of the clips are restored frame by frame as well, for how steady both models leave them,"""
    steady_frames: int = 64
    """and of each so many frames from its beginning."""
    panels: int = 8
    """Pictures to keep of where the two differ most."""
    experiment: str = "spair-comparison"
    """MLflow experiment."""

    def __post_init__(self) -> None:
        limit = 1 if self.limit is None else self.limit
        if self.frame_step < 1 or self.panels < 0 or limit < 1:
            raise ValueError("frame_step and limit must be at least 1, panels at least 0")
        inference.check_tile(self.tile)
        cluster.check_actors(self.actors, self.num_gpus)
        if self.steady_clips < 0 or self.steady_frames < 2:
            raise ValueError("steady_clips must be at least 0, steady_frames at least 2")


@dataclass(frozen=True)
class Side:
    """What one model did to the footage.

    `degraded_share` in [0, 1] is a mean, `degraded_quantiles` are its 10, 50 and 90 % points over the
    pictures. `change_clean` and `change_degraded` are mean absolute changes, in levels of 255, of the
    pixels that both models call clean, and of those that either calls degraded. `seconds` is the median.
    `flicker`, `residue` and `flips` are means over the clips that were restored frame by frame, as of
    `clips.ClipResult`: the first two over those of the footage; NaN where there are no clips.
    """

    model: str
    degraded_share: float
    degraded_quantiles: tuple[float, ...]
    change_clean: float
    change_degraded: float
    seconds: float
    flicker: float = math.nan
    residue: float = math.nan
    flips: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """Both models on the same `count` pictures.

    `mask_iou` is the mean intersection over union of their masks, `difference` the mean absolute one of
    their results in levels of 255, `apart` the pictures with the largest. `unread` are items with reasons.
    """

    champion: Side
    challenger: Side
    count: int
    mask_iou: float
    difference: float
    apart: tuple[tuple[str, float], ...]
    unread: tuple[tuple[str, str], ...] = ()

    def metrics(self) -> dict[str, float]:
        """For MLflow; what could not be measured (no clean pixel anywhere) is left out."""
        values = {"pictures": float(self.count), "unread": float(len(self.unread))}
        values |= {"mask_iou": self.mask_iou, "difference": self.difference}
        for name, side in (("champion", self.champion), ("challenger", self.challenger)):
            measured = {k: v for k, v in asdict(side).items() if isinstance(v, float)}
            measured |= dict(zip(QUANTILE_NAMES, side.degraded_quantiles, strict=True))
            values |= {f"{name}.{key}": value for key, value in measured.items()}
        return {key: value for key, value in values.items() if math.isfinite(value)}

    def __str__(self) -> str:
        head = f"{'':<11} {'degraded':>8} {'10 %':>6} {'50 %':>6} {'90 %':>6} {'on clean':>9} {'on degr.':>9}"
        lines = [f"{head} {'s/pic.':>7} {'flicker':>7} {'residue':>7} {'flips':>6}  model"]
        for name, side in (("champion", self.champion), ("challenger", self.challenger)):
            shares = " ".join(f"{share:>6.3f}" for share in side.degraded_quantiles)
            lines.append(
                f"{name:<11} {side.degraded_share:>8.3f} {shares} {side.change_clean:>9.3f}"
                f" {side.change_degraded:>9.3f} {side.seconds:>7.3f} {clips.or_dash(side.flicker, '7.3f')}"
                f" {clips.or_dash(side.residue, '7.3f')} {clips.or_dash(side.flips, '6.4f')}  {side.model}"
            )
        lines.append(
            f"{self.count} pictures and frames; masks agree to {self.mask_iou:.3f} (IoU); results differ by "
            f"{self.difference:.3f} levels of 255"
        )
        lines += [f"apart: {difference:6.3f}  {key}" for key, difference in self.apart]
        lines += [f"not read: {key}: {reason}" for key, reason in self.unread]
        return "\n".join(lines)


def compare(config: CompareConfig) -> Comparison:
    """See both models on the footage, and keep what was found in an MLflow run.

    Raises ModelError, StorageError, TrackingError; ValueError where nothing could be read.
    """
    cluster.check_answers()
    tracking.check()
    contenders = [models.resolve(spec) for spec in (config.champion, config.challenger)]
    if contenders[0].digest == contenders[1].digest:
        raise ModelError(f"{config.champion} and {config.challenger} are the same model: name two")
    items, others = _footage(config)
    with tracking.run(config.experiment, " ".join([*(m.uri for m in contenders), config.data])) as run:
        digests = {"champion_digest": contenders[0].digest, "challenger_digest": contenders[1].digest}
        run.log_params(asdict(config) | digests)
        cluster.connect()
        cpus = cluster.cpu_shares(config.actors, gpus=config.num_gpus)
        pictures = ray.data.from_items(
            [asdict(item) for item in items], override_num_blocks=min(len(items), cluster.BLOCKS)
        ).flat_map(_pictures, fn_kwargs={"quarantine": Quarantine()}, num_cpus=cpus[1])
        rows = measured(
            contenders,
            pictures,
            _Differences(config.panels),
            actors=config.actors,
            num_cpus=cpus[0],
            num_gpus=config.num_gpus,
            tile=config.tile,
        )
        comparison, panels = _summarised(config, contenders, rows, others)
        comparison = replace(
            comparison,
            champion=_steadied(comparison.champion, contenders[0], items, config),
            challenger=_steadied(comparison.challenger, contenders[1], items, config),
        )
        run.log_metrics(comparison.metrics())
        run.log_bytes("comparison.txt", str(comparison).encode())
        run.log_bytes("comparison.json", json.dumps(evaluation.plain(asdict(comparison)), indent=1).encode())
        for place, (key, png) in enumerate(panels):
            run.log_bytes(f"panels/{place:02d}-{locations.as_file_name(key)}.png", png)
    return comparison


def _steadied(side: Side, model: ResolvedModel, items: Sequence[_Item], config: CompareConfig) -> Side:
    """With how steady the model leaves some of the clips; one that cannot be read is told elsewhere."""
    footage = [clips.Footage(item.key, (item.uri,)) for item in items if medium(item.kind) is medium("clip")]
    if not footage[: config.steady_clips]:
        return side
    settings = EvaluateConfig(
        (config.data,),
        limit=config.steady_frames,
        actors=config.actors,
        num_gpus=config.num_gpus,
        tile=config.tile,
    )
    judged = clips.judge(footage[: config.steady_clips], model, settings)

    def mean(name: str) -> float:
        told = [value for result in judged if math.isfinite(value := getattr(result, name))]
        return float(np.mean(told)) if told else math.nan

    return replace(side, flicker=mean("flicker"), residue=mean("residue"), flips=mean("flips"))


@dataclass(frozen=True)
class _Item:
    """A picture, or a clip of which every `step`th frame is looked at, at most `frames` (-1: all)."""

    kind: str
    key: str
    uri: str
    frames: int
    step: int


def _footage(config: CompareConfig) -> tuple[list[_Item], list[tuple[str, str]]]:
    """The pictures and clips to look at, each with the number of its frames; and what else there is."""
    storage.check_source(config.data)
    found = [(item, medium_of(item.key)) for item in storage.list_objects(config.data)]
    usable = [(item, kind) for item, kind in found if kind is not None and not kind.collection]
    if not usable:
        raise ValueError(f"{config.data}: holds neither pictures nor clips")
    others = len(found) - len(usable)
    left_out = [(f"{others} other files", "neither pictures nor clips by their endings")] if others else []
    usable.sort(key=lambda pair: hashlib.sha256(pair[0].key.encode()).digest())
    chosen = usable[: config.limit]
    many = sum(kind.join is not None for _, kind in chosen)
    shares = _shares(None if config.limit is None else config.limit - len(chosen) + many, many)
    items = [
        _Item(kind.name, item.key, item.uri, next(shares) if kind.join else 1, config.frame_step)
        for item, kind in chosen
    ]
    return items, left_out


def _shares(whole: int | None, parts: int) -> Iterator[int]:
    """The frames that fall to each of so many clips; -1: as many as there are."""
    for place in range(parts):
        yield -1 if whole is None else whole // parts + (place < whole % parts)


def _pictures(row: dict[str, Any], quarantine: Quarantine) -> Iterator[dict[str, Any]]:
    """The pictures of an item, and an error where there are no more because of one."""
    item = _Item(**row)
    try:
        with quarantine.hold(item.key):
            yield from _seen(item)
    except (MediumError, StorageError, QuarantinedError, OSError, MemoryError) as error:
        yield picture_row(item.key, error=str(error))
    except Exception as error:  # noqa: BLE001 (it is this item's alone)
        yield picture_row(item.key, error=unforeseen(error))


def _seen(item: _Item) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        kind, local = medium(item.kind), storage.fetch(item.uri, folder)
        for number, window in _frames(kind.read(local, Reach()), item.frames, item.step):
            yield picture_row(f"{item.key}#{number}" if kind.join else item.key, window)


def _frames(pieces: Iterator[Piece], most: int, step: int) -> Iterator[tuple[int, Window]]:
    """Every `step`th frame of an item with its number and its window, at most `most` of them (-1: all)."""
    frames = ((piece.window.shown, k) for piece in pieces for k in range(len(piece.window.own)))
    chosen = islice(islice(enumerate(frames), 0, None, step), None if most < 0 else most)
    return ((number, window.at(k)) for number, (window, k) in chosen)


@dataclass
class _Differences:
    """Measures two models against one another; draws a panel while it may be among the `panels` largest."""

    panels: int
    largest: list[float] = field(default_factory=list)

    def __call__(self, pixels: NDArray[np.uint8], looks: list[Look]) -> tuple[dict[str, Any], bytes]:
        """See `Side` and `Comparison` for what is measured."""
        first, second = looks
        either, both = first.mask | second.mask, first.mask & second.mask
        change = [_apart(look.pixels, pixels) for look in looks]
        apart = _apart(first.pixels, second.pixels)
        difference = float(apart.mean())
        values = {
            "share": [float(look.mask.mean()) for look in looks],
            "change_clean": [_mean(values[~either]) for values in change],
            "change_degraded": [_mean(values[either]) for values in change],
            "seconds": [look.seconds for look in looks],
            "iou": float(both.sum() / either.sum()) if either.any() else 1.0,
            "difference": difference,
        }
        return values, _panel(pixels, looks, apart) if self._shown(difference) else b""

    def _shown(self, difference: float) -> bool:
        # Whatever is among the largest of all actors is so among its own actor's.
        if difference == 0 or self.panels == 0:
            return False
        if len(self.largest) < self.panels:
            heapq.heappush(self.largest, difference)
            return True
        return heapq.heappushpop(self.largest, difference) < difference


def _apart(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean absolute difference over the channels, in levels, [H, W]."""
    return np.abs(a.astype(np.float32) - b).mean(axis=2)


def _mean(values: NDArray[np.float32]) -> float:
    return float(values.mean()) if values.size else math.nan


def _panel(pixels: NDArray[np.uint8], looks: list[Look], apart: NDArray[np.float32]) -> bytes:
    amplified = np.clip(apart * DIFFERENCE_GAIN, 0, 255).astype(np.uint8)
    firsts = (("before", pixels), (f"difference x {DIFFERENCE_GAIN}", np.repeat(amplified[..., None], 3, 2)))
    strips = [
        side_by_side(
            [
                first,
                (f"{name} found ({look.mask.mean():.1%})", overlay(pixels, look.mask)),
                (f"after {name}", look.pixels),
            ]
        )
        for first, name, look in zip(firsts, ("champion", "challenger"), looks, strict=True)
    ]
    return images.encode_png(np.concatenate(strips))


def _summarised(
    config: CompareConfig,
    contenders: Sequence[ResolvedModel],
    rows: Iterator[dict[str, Any]],
    others: list[tuple[str, str]],
) -> tuple[Comparison, list[tuple[str, bytes]]]:
    """The comparison, and the panels of where the two are furthest apart."""
    best: list[tuple[float, str, bytes]] = []
    good, unread = sorted_out(_keeping_panels(rows, best, config.panels), config.data)
    best.sort(reverse=True)
    champion, challenger = (_side(model, number, good) for number, model in enumerate(contenders))
    comparison = Comparison(
        champion,
        challenger,
        len(good),
        float(np.mean([row["iou"] for row in good])),
        float(np.mean([row["difference"] for row in good])),
        tuple((key, difference) for difference, key, _ in best),
        (*unread, *others),
    )
    return comparison, [(key, png) for _, key, png in best]


def _keeping_panels(
    rows: Iterator[dict[str, Any]], best: list[tuple[float, str, bytes]], most: int
) -> Iterator[dict[str, Any]]:
    """The rows without their panels, the `most` best of which are in `best` at the end."""
    for row in rows:
        panel = row.pop("panel")
        if panel:
            heapq.heappush(best, (row["difference"], row["key"], panel))
            if len(best) > most:
                heapq.heappop(best)
        yield row


def _side(model: ResolvedModel, number: int, rows: list[dict[str, Any]]) -> Side:
    def values(name: str) -> NDArray[np.float64]:
        return np.array([row[name][number] for row in rows])

    def mean(name: str) -> float:
        there = values(name)[~np.isnan(values(name))]
        return float(there.mean()) if there.size else math.nan

    return Side(
        model.uri,
        mean("share"),
        tuple(float(share) for share in np.quantile(values("share"), QUANTILES)),
        mean("change_clean"),
        mean("change_degraded"),
        float(np.median(values("seconds"))),
    )
