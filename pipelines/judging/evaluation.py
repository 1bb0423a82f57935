"""How good a model is on named sets: whole pictures, judged as the field's tables are."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from pipelines.data import pairs, shards
from pipelines.data.owners import LayoutName
from pipelines.services import cluster, models
from pipelines.services.models import ResolvedModel
from pipelines.services.quarantine import Quarantine, unforeseen
from spair_core import inference, metrics, weights
from spair_core.degradations.catalogue import measures
from spair_core.images import PictureError
from spair_core.metrics import LabErrors

if TYPE_CHECKING:
    from spair_core.network import Spair

PSNR_CEILING = 100.0
"""Equal pictures have an infinite PSNR, which no mean survives; it counts as this many dB."""
PROGRESS_SECONDS = 30.0
"""Time between two lines that say how far a long evaluation is."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What to judge, and on what."""

    data: tuple[str, ...]
    """Shards, folders of pairs (input/, target/), or folders of such folders."""
    model: str = "rain-light"
    """A file, a URI, models:/spair-rain@champion, or the name of shipped weights."""
    layout: LayoutName = "folders"
    """How the folders of `data` are laid out, where they are not shards."""
    json: str | None = None
    """Write the results here as well: a list with an object a set (with --paper, also the tables)."""
    actors: int = 1
    """Processes that hold the model."""
    num_gpus: float = 0.0
    """GPUs of each of them; 0 computes on CPUs."""
    tile: int = inference.TILE
    """Larger pictures go through in overlapping tiles."""
    limit: int | None = None
    """Look at only so many pictures of each set."""
    footage: bool = False
    """Judge clips (--layout clip-pairs, or clips, of which no truth is known) or folders of frames as
    footage: also flicker, and what is left of what stands still. --limit then bounds a clip's frames."""
    frame_rate: float = 25.0
    """Frames a second of folders of frames."""
    paper: bool = False
    """Print the paper's tables beside ours. Sets are known by their names: Test100, AGAN-a, ISTD, GoPro..."""
    models: tuple[str, ...] = ()
    """With --paper: several models instead of one, each for the tables of its task."""
    localizers: tuple[str, ...] = ()
    """Models whose Net_L takes the place of the model's, one after another (the paper's table S3)."""

    def __post_init__(self) -> None:
        if self.models and not self.paper:
            raise ValueError("several models are for the paper's tables: add --paper, or give one --model")
        if self.footage and (self.paper or self.localizers):
            raise ValueError("footage has a table of its own: leave --paper and --localizers out")
        if self.frame_rate <= 0:
            raise ValueError(f"frame_rate must be above 0, not {self.frame_rate}")
        if self.localizers and self.paper:
            raise ValueError("--localizers has a table of its own: leave --paper out")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, not {self.limit}")
        inference.check_tile(self.tile)
        cluster.check_actors(self.actors, self.num_gpus)


@dataclass(frozen=True)
class WorstGain:
    """The picture of a set that gained least: its key and its gain in PSNR on Y."""

    key: str
    gain: float


@dataclass(frozen=True)
class SetResult:
    """Means over the pictures of one set: dB, SSIM in [-1, 1], shares in [0, 1], seconds a picture.

    `rejected` are the pictures that could not be judged, each with its reason. `mask_bce` (nats a pixel,
    of Net_L's logits against the mask) is NaN where it was not asked for, as every mean over no picture is;
    `lab` and `input_lab` are there where shadows were judged.
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
    input_psnr_rgb: float = math.nan
    mask_bce: float = math.nan
    lab: LabErrors | None = None
    input_lab: LabErrors | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, where NaN becomes None."""
        values: dict[str, Any] = plain(asdict(self))
        return values


def plain(value: Any) -> Any:
    """The same lists and objects with None for every number that JSON does not know."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def evaluate(config: EvaluateConfig, model: ResolvedModel | None = None) -> list[SetResult]:
    """Judge `config.model` (or a `model` resolved already) on every set of `config.data`.

    Raises ModelError, StorageError; ValueError where not one picture could be judged.
    """
    results = judge(config, model or models.resolve(config.model))
    if not any(result.count for result in results):
        reasons = "\n".join(f"{key}: {reason}" for result in results for key, reason in result.rejected)
        raise ValueError(f"no picture of {', '.join(config.data)} could be judged:\n{reasons}")
    return results


def judge(
    config: EvaluateConfig, model: ResolvedModel, *, leave_out: Collection[str] = ()
) -> list[SetResult]:
    """A result for each set of `config.data` but those named in `leave_out` (in lower case), by name.

    Raises StorageError.
    """
    items = pairs.list_examples(config.data, layout=config.layout, limit=config.limit)
    items = [item for item in items if _set_of(item).lower() not in leave_out]
    if not items:
        return []
    cluster.connect()
    total = sum(item["group"]["rows"] if item.get("group") else 1 for item in items)
    rows = list(_with_progress(_judged_rows(config, model, items, frozenset(leave_out)), total))
    names = sorted({row["set"] for row in rows})
    return [_summarise(name, [row for row in rows if row["set"] == name]) for name in names]


def _set_of(item: dict[str, Any]) -> str:
    """The set that a pair, or what is left of one, belongs to; of a shard nothing, for it has to be read."""
    name: str = (item.get("files") or item.get("left_out") or {}).get("set", "")
    return name


def _judged_rows(
    config: EvaluateConfig, model: ResolvedModel, items: list[dict[str, Any]], leave_out: frozenset[str]
) -> Iterable[dict[str, Any]]:
    actor_cpus, task_cpus = cluster.cpu_shares(config.actors, gpus=config.num_gpus)
    card = model.card
    examples = pairs.examples(items, num_cpus=task_cpus)
    if leave_out:
        examples = examples.flat_map(
            lambda row: [] if row["set"].lower() in leave_out else [row], num_cpus=task_cpus
        )
    restored = examples.map(
        _Restorer,
        fn_constructor_kwargs={
            "model": model.data,
            "tile": config.tile,
            "bce": bool(config.localizers),
            "quarantine": Quarantine(),
        },
        compute=ray.data.ActorPoolStrategy(size=config.actors),
        num_cpus=actor_cpus,
        num_gpus=config.num_gpus or None,
    )
    # Judging takes a CPU about 0.4 s a megapixel, for which no actor (and no GPU) is made to wait.
    judged = restored.map(
        _judged,
        fn_kwargs={"threshold": card.mask_threshold, "shadows": "Lab" in measures(card.task)},
        num_cpus=task_cpus,
    )
    rows: Iterable[dict[str, Any]] = judged.iter_rows()
    return rows


def _with_progress(rows: Iterable[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    shown = time.monotonic()
    for number, row in enumerate(rows, 1):
        yield row
        if time.monotonic() - shown >= PROGRESS_SECONDS:
            shown = time.monotonic()
            print(f"judged {number:,} of {total:,} pictures", file=sys.stderr, flush=True)


class _Restorer:
    """The actor: holds the model and restores pictures, adding to a row what became of it."""

    def __init__(self, model: bytes, tile: int, bce: bool, quarantine: Quarantine) -> None:
        self.model, self.threshold = models.load_here(model), weights.read_card(model).mask_threshold
        self.tile, self.bce, self.quarantine = tile, bce, quarantine

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        nothing = {"restored": b"", "found": b"", "seconds_per_picture": 0.0, "mask_bce": math.nan}
        if row["error"]:
            return {**row, **nothing}
        try:
            with self.quarantine.hold(f"{row['set']}/{row['key']}"):
                return {**row, **self._restored(row)}
        except (PictureError, ValueError, RuntimeError) as error:
            return {**row, **nothing, "error": str(error)}
        except Exception as error:  # noqa: BLE001 (it is this picture's alone)
            return {**row, **nothing, "error": unforeseen(error)}

    def _restored(self, row: dict[str, Any]) -> dict[str, Any]:
        example, degraded = shards.judged_example(row, self.threshold)
        started = time.monotonic()
        result = inference.restore_window(self.model, example.shown, tile=self.tile)
        return {
            "seconds_per_picture": time.monotonic() - started,
            # Raw bytes: pictures of a set differ in size, and the example tells it.
            "restored": result.pixels[0].tobytes(),
            "found": result.mask[0].tobytes(),
            "mask_bce": mask_bce(self.model, degraded, example.mask, self.tile) if self.bce else math.nan,
        }


def mask_bce(
    model: Spair, degraded: NDArray[np.uint8], mask: NDArray[np.bool_] | None, tile: int = inference.TILE
) -> float:
    """Binary cross-entropy of Net_L's logits against a mask bool [H, W], in nats a pixel.

    `degraded` is uint8 [H, W, 3]; None is the mask of a clean picture. Raises ValueError where a `tile`
    is too small.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    device = next(model.parameters()).device
    picture = torch.tensor(degraded, device=device).permute(2, 0, 1).float()[None] / 255
    height, width = degraded.shape[:2]
    logits = torch.zeros(height, width, device=device)
    with torch.inference_mode():
        for top, bottom in inference.spans(height, tile):
            for left, right in inference.spans(width, tile):
                logits[top:bottom, left:right] = model.locate(picture[..., top:bottom, left:right])[0, 0]
    true = torch.zeros_like(logits) if mask is None else torch.tensor(mask, device=device).float()
    return float(binary_cross_entropy_with_logits(logits, true))


def _judged(row: dict[str, Any], threshold: float, shadows: bool) -> dict[str, Any]:
    """The scores of a restored row, or why it has none."""
    labels = {"set": row["set"], "key": row["key"], "error": row["error"] or ""}
    nothing = dict.fromkeys(SCORES, 0.0) | {"lab": np.zeros((2, 3, 3))}
    if row["error"]:
        return {**labels, **nothing}
    try:
        return {**labels, **_scores(row, threshold, shadows)}
    except (PictureError, ValueError) as error:
        return {**labels, **nothing, "error": str(error)}
    except Exception as error:  # noqa: BLE001 (it is this picture's alone)
        return {**labels, **nothing, "error": unforeseen(error)}


def _scores(row: dict[str, Any], threshold: float, shadows: bool) -> dict[str, Any]:
    example, degraded = shards.judged_example(row, threshold)
    clean = example.clean
    after = np.frombuffer(row["restored"], np.uint8).reshape(clean.shape)
    found = np.frombuffer(row["found"], np.bool_).reshape(clean.shape[:2])
    true = example.mask if example.mask is not None else np.zeros_like(found)
    precision, recall = metrics.mask_scores(found, true)
    lab = np.zeros((2, 3, 3))
    if shadows or "Lab" in measures(row["task"]):
        lab = np.stack([metrics.lab_sums(picture, clean, true) for picture in (after, degraded)])
    return {
        "psnr_y": min(metrics.psnr_y(after, clean), PSNR_CEILING),
        "ssim_y": metrics.ssim_y(after, clean),
        "psnr_rgb": min(metrics.psnr(after, clean), PSNR_CEILING),
        "ssim_rgb": metrics.ssim(after, clean),
        "input_psnr_y": min(metrics.psnr_y(degraded, clean), PSNR_CEILING),
        "input_psnr_rgb": min(metrics.psnr(degraded, clean), PSNR_CEILING),
        "mask_precision": precision,
        "mask_recall": recall,
        "mask_bce": row["mask_bce"],
        "density": float(found.mean()),
        "seconds_per_picture": row["seconds_per_picture"],
        "lab": lab,
    }


SCORES = (
    "psnr_y",
    "ssim_y",
    "psnr_rgb",
    "ssim_rgb",
    "input_psnr_y",
    "input_psnr_rgb",
    "mask_precision",
    "mask_recall",
    "mask_bce",
    "density",
    "seconds_per_picture",
)


def _summarise(name: str, rows: Sequence[dict[str, Any]]) -> SetResult:
    good = [row for row in rows if not row["error"]]
    means = {score: float(np.mean([row[score] for row in good])) if good else math.nan for score in SCORES}
    gains = [WorstGain(row["key"], row["psnr_y"] - row["input_psnr_y"]) for row in good]
    worst = min(gains, key=lambda gain: gain.gain, default=None)
    rejected = tuple((row["key"], row["error"]) for row in rows if row["error"])
    sums = np.sum([row["lab"] for row in rows], axis=0)
    lab = [metrics.lab_errors(part) if sums.any() else None for part in sums]
    return SetResult(
        name, len(good), **means, worst_gain_y=worst, rejected=rejected, lab=lab[0], input_lab=lab[1]
    )


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
    lines += [f"{r.name}: Lab {describe_lab(r.lab, r.input_lab)}" for r in results if r.lab and r.input_lab]
    lines += [f"rejected: {r.name}/{key}: {reason}" for r in results for key, reason in r.rejected]
    return "\n".join(lines)


def describe_lab(after: LabErrors, before: LabErrors) -> str:
    """Both kinds of error in Lab, by region, after and before restoration, named for what they are."""

    def shown(now: dict[str, float], then: dict[str, float]) -> str:
        return ", ".join(f"{region} {now[region]:.2f} (input {then[region]:.2f})" for region in now)

    return (
        f"mean absolute error (the field's RMSE): {shown(after.mae, before.mae)}; "
        f"root mean square error: {shown(after.rmse, before.rmse)}"
    )
