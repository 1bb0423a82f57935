"""How good a model is on named sets: whole pictures, judged as the field's tables are."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import ray
import ray.data
import torch

from pipelines import cluster, models, pairs, shards
from pipelines.models import ResolvedModel
from spair_core import inference, metrics, weights
from spair_core.images import PictureError

PSNR_CEILING = 100.0
"""Equal pictures have an infinite PSNR, which no mean survives; it counts as this many dB."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What to judge, and on what."""

    data: tuple[str, ...]
    """Shards, folders of pairs (input/, target/), or folders of such folders."""
    model: str = "rain-light"
    """A file, a URI, models:/spair-rain@champion, or the name of shipped weights."""
    json: str | None = None
    """Write the results here as well: a list with an object a set."""
    actors: int = 1
    """Processes that hold the model."""
    num_gpus: float = 0.0
    """GPUs of each of them; 0 computes on CPUs."""
    tile: int = 1024
    """Larger pictures go through in overlapping tiles."""
    limit: int | None = None
    """Look at only so many pictures of each set."""


@dataclass(frozen=True)
class WorstGain:
    """The picture of a set that gained least: its key and its gain in PSNR on Y."""

    key: str
    gain: float


@dataclass(frozen=True)
class SetResult:
    """Means over the pictures of one set: dB, SSIM in [-1, 1], shares in [0, 1], seconds a picture.

    `rejected` are the pictures that could not be judged, each with its reason.
    """

    name: str
    count: int
    psnr_y: float
    ssim_y: float
    psnr_rgb: float
    ssim_rgb: float
    input_psnr_y: float
    worst_gain_y: WorstGain | None
    mask_precision: float
    mask_recall: float
    density: float
    seconds_per_picture: float
    rejected: tuple[tuple[str, str], ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def evaluate(config: EvaluateConfig, model: ResolvedModel | None = None) -> list[SetResult]:
    """Judge `config.model` (or a `model` resolved already) on every set of `config.data`.

    Raises ModelError, StorageError; ValueError where not one picture could be judged.
    """
    model = model or models.resolve(config.model)
    items = pairs.list_examples(config.data, limit=config.limit)
    cluster.connect()
    rows = _judged_rows(config, model, items)
    names = sorted({row["set"] for row in rows})
    results = [_summarise(name, [row for row in rows if row["set"] == name]) for name in names]
    if not any(result.count for result in results):
        reasons = "\n".join(f"{key}: {reason}" for result in results for key, reason in result.rejected)
        raise ValueError(f"no picture of {', '.join(config.data)} could be judged:\n{reasons}")
    return results


def _judged_rows(
    config: EvaluateConfig, model: ResolvedModel, items: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    actor_cpus, task_cpus = cluster.cpu_shares(config.actors, gpus=config.num_gpus)
    judged = pairs.examples(items, num_cpus=task_cpus).map(
        _Judge,
        fn_constructor_kwargs={"model": model.data, "tile": config.tile},
        compute=ray.data.ActorPoolStrategy(size=config.actors),
        num_cpus=actor_cpus,
        num_gpus=config.num_gpus or None,
    )
    return list(judged.iter_rows())


class _Judge:
    """The actor: holds the model, restores a picture and scores it."""

    def __init__(self, model: bytes, tile: int) -> None:
        self.model, card = weights.load(model)
        self.threshold, self.tile = card.mask_threshold, tile
        if torch.cuda.is_available() and ray.get_gpu_ids():
            self.model = self.model.to("cuda")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        empty = dict.fromkeys(SCORES, 0.0)
        labels = {"set": row["set"], "key": row["key"], "error": row["error"] or ""}
        if row["error"]:
            return {**labels, **empty}
        try:
            return {**labels, **self._scores(row)}
        except (PictureError, ValueError, RuntimeError) as error:
            return {**labels, **empty, "error": str(error)}

    def _scores(self, row: dict[str, Any]) -> dict[str, float]:
        example, degraded = shards.judged_example(row, self.threshold)
        started = time.monotonic()
        restored = inference.restore(self.model, degraded[None], tile=self.tile)
        seconds = time.monotonic() - started
        after, clean = restored.pixels[0], example.clean
        true = example.mask if example.mask is not None else np.zeros_like(restored.mask[0])
        precision, recall = metrics.mask_scores(restored.mask[0], true)
        return {
            "psnr_y": min(metrics.psnr_y(after, clean), PSNR_CEILING),
            "ssim_y": metrics.ssim_y(after, clean),
            "psnr_rgb": min(metrics.psnr(after, clean), PSNR_CEILING),
            "ssim_rgb": metrics.ssim(after, clean),
            "input_psnr_y": min(metrics.psnr_y(degraded, clean), PSNR_CEILING),
            "mask_precision": precision,
            "mask_recall": recall,
            "density": float(restored.mask[0].mean()),
            "seconds_per_picture": seconds,
        }


SCORES = (
    "psnr_y",
    "ssim_y",
    "psnr_rgb",
    "ssim_rgb",
    "input_psnr_y",
    "mask_precision",
    "mask_recall",
    "density",
    "seconds_per_picture",
)


def _summarise(name: str, rows: Sequence[dict[str, Any]]) -> SetResult:
    good = [row for row in rows if not row["error"]]
    means = {score: float(np.mean([row[score] for row in good])) if good else math.nan for score in SCORES}
    gains = [WorstGain(row["key"], row["psnr_y"] - row["input_psnr_y"]) for row in good]
    worst = min(gains, key=lambda gain: gain.gain, default=None)
    rejected = tuple((row["key"], row["error"]) for row in rows if row["error"])
    return SetResult(name, len(good), **means, worst_gain_y=worst, rejected=rejected)


def table(results: Sequence[SetResult]) -> str:
    """For people: a line a set, then what was rejected."""
    head = f"{'set':<20} {'count':>5} {'PSNR-Y':>7} {'SSIM-Y':>7} {'PSNR':>7} {'SSIM':>7}"
    head += f" {'input':>7} {'gain':>6} {'worst':>6}"
    head += f" {'prec.':>6} {'recall':>6} {'dens.':>6} {'s/pic.':>7}  worst picture"
    lines = [head]
    for r in results:
        worst = r.worst_gain_y or WorstGain("", math.nan)
        lines.append(
            f"{r.name:<20} {r.count:>5} {r.psnr_y:>7.2f} {r.ssim_y:>7.4f}"
            f" {r.psnr_rgb:>7.2f} {r.ssim_rgb:>7.4f}"
            f" {r.input_psnr_y:>7.2f} {r.psnr_y - r.input_psnr_y:>+6.2f} {worst.gain:>+6.2f}"
            f" {r.mask_precision:>6.3f} {r.mask_recall:>6.3f} {r.density:>6.3f} {r.seconds_per_picture:>7.3f}"
            f"  {worst.key}"
        )
    lines += [f"rejected: {r.name}/{key}: {reason}" for r in results for key, reason in r.rejected]
    return "\n".join(lines)
