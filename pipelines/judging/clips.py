"""How good a model is on footage: each frame against its truth, and what no single frame tells.

    list -> [ read, decode ] -> [ Net_L -> Net_R ] -> [ judge a run ] -> means a clip
             CPU tasks            actors with the       CPU tasks          on the driver
                                  model

Clips of a layout (`clip-pairs`, or `clips`, of which no truth is known), or folders of numbered frames.
"""

from __future__ import annotations

import math
import posixpath
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain, islice, repeat
from typing import Any

import numpy as np
import ray.data
from numpy.typing import NDArray

from pipelines.data import layouts
from pipelines.data.layouts import PairFiles
from pipelines.judging.evaluation import PSNR_CEILING, EvaluateConfig, plain
from pipelines.media import NO_PIECE, Piece, medium, medium_of, packed, unpacked
from pipelines.services import cluster, models, storage
from pipelines.services.models import ResolvedModel
from pipelines.services.quarantine import Quarantine, QuarantinedError, unforeseen
from pipelines.services.storage import StorageError
from spair_core import images, inference, metrics
from spair_core.footage import Reach, Window, steadiness, windows
from spair_core.masks import mask_from_pair

Pixels = NDArray[np.uint8]

RUN = 32
"""Frames of a run: about a second, over which what stands still is told."""


@dataclass(frozen=True)
class ClipResult:
    """Means over the frames of a clip; NaN is what takes a truth and has none.

    dB of PSNR, SSIM, precision and recall of the mask, its share of the picture (`density`). `flicker` is
    the warping error over that of the truth (without one, over that of the input): 1 is ideal, less is too
    smooth; `input_flicker` that of the input over the truth's. `flips` is the share of pixels whose mask bit
    changes from frame to frame. `residue` is what stands still and is fine, over that of the input;
    `contrast` how much is left of what truly stands still (markings, clocks): 1 is all of it.
    """

    name: str
    frames: int
    psnr_y: float = math.nan
    input_psnr_y: float = math.nan
    ssim_y: float = math.nan
    mask_precision: float = math.nan
    mask_recall: float = math.nan
    density: float = math.nan
    flicker: float = math.nan
    input_flicker: float = math.nan
    flips: float = math.nan
    residue: float = math.nan
    contrast: float = math.nan
    seconds_per_frame: float = math.nan
    rejected: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, where NaN becomes None."""
        values: dict[str, Any] = plain(asdict(self))
        return values


MEASURES = tuple(f.name for f in fields(ClipResult) if f.name not in ("name", "frames", "rejected"))


def judge_clips(config: EvaluateConfig, model: ResolvedModel | None = None) -> list[ClipResult]:
    """A result for each clip of `config.data`, of which `limit` bounds the frames, by name.

    Raises ModelError, StorageError; ValueError where no clip could be judged.
    """
    results = judge(list(_clips(config)), model or models.resolve(config.model), config)
    if not any(result.frames for result in results):
        reasons = "\n".join(f"{result.name}: {result.rejected}" for result in results)
        raise ValueError(f"no clip of {', '.join(config.data)} could be judged:\n{reasons}")
    return results


@dataclass(frozen=True)
class Footage:
    """A clip by the files of its frames as a model is to see them, and of the truth: a clip, or pictures."""

    name: str
    seen: tuple[str, ...]
    truth: tuple[str, ...] = ()


def judge(clips: Sequence[Footage], model: ResolvedModel, config: EvaluateConfig) -> list[ClipResult]:
    """A result for each of the clips, whose frames `config.limit` bounds; where there is none, with why."""
    cluster.connect()
    actor_cpus, task_cpus = cluster.cpu_shares(config.actors, gpus=config.num_gpus)
    quarantine = Quarantine()
    stream = ray.data.from_items([asdict(clip) for clip in clips], override_num_blocks=len(clips))
    stream.context.target_max_block_size = cluster.BLOCK_BYTES
    runs = stream.flat_map(_runs, fn_kwargs={"config": config, "quarantine": quarantine}, num_cpus=task_cpus)
    restored = runs.map(
        _Restorer,
        fn_constructor_kwargs={"model": model.data, "tile": config.tile, "quarantine": quarantine},
        compute=ray.data.ActorPoolStrategy(size=config.actors),
        num_cpus=actor_cpus,
        num_gpus=config.num_gpus or None,
    )
    judged = restored.map(_judged, fn_kwargs={"threshold": model.card.mask_threshold}, num_cpus=task_cpus)
    rows = list(judged.iter_rows())
    return [_summed(clip.name, [row for row in rows if row["name"] == clip.name]) for clip in clips]


def _clips(config: EvaluateConfig) -> Iterator[Footage]:
    listing = layouts.find(config.data, config.layout, split="test", prefer="test")
    places: dict[str, list[PairFiles]] = {}
    for files in dict.fromkeys(listing.pairs):  # a location may lie within another, and is listed twice then
        place = files.target if _whole(files) else posixpath.dirname(files.target)
        places.setdefault(place, []).append(files)
    for name, place in sorted(zip(_names(places), places, strict=True)):
        ordered = sorted(places[place], key=lambda files: files.key)
        pairs = [files for files in ordered if files.input]
        seen = pairs or ordered
        yield Footage(
            name,
            tuple(files.input or files.target for files in seen),
            tuple(files.target for files in pairs),
        )


def _whole(files: PairFiles) -> bool:
    """Whether it is a clip, rather than a frame of one."""
    return medium_of(files.target) is medium("clip")


def _names(places: Mapping[str, Sequence[PairFiles]]) -> list[str]:
    """A name for the clip at each place: its own, with that of its set, or the place.

    The first of these that tells all clips apart: results are known by their names.
    """
    firsts = [frames[0] for frames in places.values()]
    own = [(files.set, files.key if _whole(files) else posixpath.dirname(files.key)) for files in firsts]
    short = [name or of_set for of_set, name in own]
    full = [f"{of_set}/{name}".rstrip("/") for of_set, name in own]
    return next(names for names in (short, full, list(places)) if len(set(names)) == len(names))


def _runs(row: dict[str, Any], config: EvaluateConfig, quarantine: Quarantine) -> Iterator[dict[str, Any]]:
    clip = Footage(row["name"], tuple(row["seen"]), tuple(row["truth"]))
    blank = {"name": clip.name, "error": "", "truth": b"", **NO_PIECE}
    try:
        with quarantine.hold(clip.name), tempfile.TemporaryDirectory() as folder:
            for window, truth in _both(clip, folder, config):
                yield {**blank, **packed(Piece(window, None)), "truth": truth}
    except (ValueError, StorageError, QuarantinedError, OSError, MemoryError) as error:
        yield {**blank, "error": str(error)}
    except Exception as error:  # noqa: BLE001 (it is this clip's alone)
        yield {**blank, "error": unforeseen(error)}


def _both(clip: Footage, folder: str, config: EvaluateConfig) -> Iterator[tuple[Window, bytes]]:
    """Runs of a clip, and the truth's frames of each (nothing where there is none). Raises ValueError."""
    seen = islice(_frames(clip.seen, folder, config.frame_rate), config.limit)
    truths = iter(_frames(clip.truth, folder, config.frame_rate)) if clip.truth else repeat(None)
    for window in windows(seen, RUN, Reach()):
        if not clip.truth:
            yield window, b""
            continue
        frames = [frame[0] for frame in islice(truths, len(window.own)) if frame is not None]
        if len(frames) < len(window.own) or frames[0].shape != window.pixels.shape[1:]:
            raise ValueError("its truth has fewer frames, or of another size")
        yield window, np.stack(frames).tobytes()


def _frames(uris: Sequence[str], folder: str, rate: float) -> Iterator[tuple[Pixels, float]]:
    """The frames of a clip, or of pictures in order, with their times."""
    if medium_of(uris[0]) is not medium("clip"):
        for number, uri in enumerate(uris):
            yield images.decode(storage.read_bytes(uri)).pixels, number / rate
        return
    for piece in medium("clip").read(storage.fetch(uris[0], folder), None):
        yield from zip(piece.window.shown.pixels, piece.seconds, strict=True)


class _Restorer:
    """The actor: holds the model and restores a run a call."""

    def __init__(self, model: bytes, tile: int, quarantine: Quarantine) -> None:
        self.model = models.load_here(model)
        self.tile, self.quarantine = tile, quarantine

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        nothing = {"restored": b"", "found": b"", "seconds": 0.0}
        if row["error"]:
            return {**row, **nothing}
        try:
            with self.quarantine.hold(row["name"]):
                started = time.monotonic()
                result = inference.restore_window(self.model, unpacked(row).window, tile=self.tile)
                seconds = time.monotonic() - started
        except (RuntimeError, MemoryError) as error:
            return {**row, **nothing, "error": f"the model could not restore it: {error}"}
        except Exception as error:  # noqa: BLE001
            return {**row, **nothing, "error": f"the model could not restore it: {unforeseen(error)}"}
        found = {"restored": result.pixels.tobytes(), "found": result.mask.tobytes()}
        return {**row, **found, "seconds": seconds}


def _judged(row: dict[str, Any], threshold: float) -> dict[str, Any]:
    """What a run adds to its clip: `weights` and sums of each measure, or why it adds nothing."""
    nothing = {"name": row["name"], "error": row["error"], "frames": 0, **_blank()}
    if row["error"]:
        return nothing
    try:
        return {**nothing, **_sums(row, threshold)}
    except (ValueError, MemoryError) as error:
        return {**nothing, "error": f"it could not be judged: {error}"}
    except Exception as error:  # noqa: BLE001 (it is this clip's alone)
        return {**nothing, "error": f"it could not be judged: {unforeseen(error)}"}


def _blank() -> dict[str, float]:
    return {f"{part}_{name}": 0.0 for name in MEASURES for part in ("sum", "weight")}


def _sums(row: dict[str, Any], threshold: float) -> dict[str, Any]:
    window = unpacked(row).window
    before = list(window.pixels[window.own.start : window.own.stop])
    shape = (len(before), *before[0].shape)
    after = list(np.frombuffer(row["restored"], np.uint8).reshape(shape))
    masks = list(np.frombuffer(row["found"], np.bool_).reshape(shape[:3]))
    truth = list(np.frombuffer(row["truth"], np.uint8).reshape(shape)) if row["truth"] else None
    measured = chain(
        _stills(before, after, masks, truth, threshold),
        _flicker(before, after, masks, truth),
        _standing(before, after, truth),
        [("seconds_per_frame", row["seconds"], len(before))],
    )
    sums = _blank()
    for name, total, weight in measured:
        if math.isfinite(total):
            sums[f"sum_{name}"] += total
            sums[f"weight_{name}"] += weight
    return {**sums, "frames": len(before)}


Measured = Iterator[tuple[str, float, float]]
"""Name of a measure, a sum, and what to divide it by."""


def _stills(
    before: list[Pixels],
    after: list[Pixels],
    masks: list[NDArray[np.bool_]],
    truth: list[Pixels] | None,
    threshold: float,
) -> Measured:
    for k, mask in enumerate(masks):
        yield "density", float(mask.mean()), 1
        if truth is not None:
            yield "psnr_y", min(metrics.psnr_y(after[k], truth[k]), PSNR_CEILING), 1
            yield "input_psnr_y", min(metrics.psnr_y(before[k], truth[k]), PSNR_CEILING), 1
            yield "ssim_y", metrics.ssim_y(after[k], truth[k]), 1
            scores = metrics.mask_scores(mask, mask_from_pair(before[k], truth[k], threshold))
            yield "mask_precision", scores[0], 1
            yield "mask_recall", scores[1], 1


def _flicker(
    before: list[Pixels], after: list[Pixels], masks: list[NDArray[np.bool_]], truth: list[Pixels] | None
) -> Measured:
    guide = before if truth is None else truth
    for k in range(len(before) - 1):
        motion = steadiness.Motion.between(guide[k], guide[k + 1])
        errors = [steadiness.warping_error(f[k], f[k + 1], motion) for f in (after, before, guide)]
        if not math.isfinite(errors[0]):
            continue
        yield "flicker", errors[0], errors[2]
        if truth is not None:
            yield "input_flicker", errors[1], errors[2]
        yield "flips", steadiness.flips(masks[k], masks[k + 1], motion), 1


def _standing(before: list[Pixels], after: list[Pixels], truth: list[Pixels] | None) -> Measured:
    some = slice(None, None, 5)
    if len(before[some]) < 3:
        return
    yield "residue", steadiness.residue(after[some]), steadiness.residue(before[some])
    if truth is not None:
        yield "contrast", steadiness.kept_contrast(after[some], truth[some]), 1


def _summed(name: str, rows: list[dict[str, Any]]) -> ClipResult:
    measured = {}
    for measure in MEASURES:
        total, weight = (sum(row[f"{part}_{measure}"] for row in rows) for part in ("sum", "weight"))
        measured[measure] = total / weight if weight else math.nan
    reasons = [row["error"] for row in rows if row["error"]]
    frames = sum(int(row["frames"]) for row in rows)
    return ClipResult(name, frames, **measured, rejected=reasons[0] if reasons else "")


COLUMNS = (
    ("PSNR", "psnr_y", "6.2f"),
    ("input", "input_psnr_y", "6.2f"),
    ("SSIM", "ssim_y", "6.4f"),
    ("prec.", "mask_precision", "6.3f"),
    ("recall", "mask_recall", "6.3f"),
    ("marked", "density", "6.3f"),
    ("flicker", "flicker", "7.3f"),
    ("(input)", "input_flicker", "7.3f"),
    ("flips", "flips", "6.4f"),
    ("residue", "residue", "7.3f"),
    ("contrast", "contrast", "8.3f"),
    ("s/frame", "seconds_per_frame", "7.3f"),
)


def table(results: Sequence[ClipResult]) -> str:
    """For people: a line a clip; what takes a truth and has none is left open."""
    wide = max(len(result.name) for result in results)
    heads = " ".join(f"{head:>{form.partition('.')[0]}}" for head, _, form in COLUMNS)
    return "\n".join(
        [f"{'clip':<{wide}} {'frames':>6} {heads}", *(_line(result, wide) for result in results)]
    )


def _line(result: ClipResult, wide: int) -> str:
    if not result.frames:
        return f"{result.name:<{wide}} rejected: {result.rejected}"
    values = [(getattr(result, name), form) for _, name, form in COLUMNS]
    cells = " ".join(or_dash(value, form) for value, form in values)
    line = f"{result.name:<{wide}} {result.frames:>6} {cells}"
    return f"{line}  cut short: {result.rejected}" if result.rejected else line


def or_dash(value: float, form: str) -> str:
    """A number in a format such as 6.2f, or a dash as wide where there is none."""
    return f"{value:>{form}}" if math.isfinite(value) else "-".rjust(int(form[0]))
