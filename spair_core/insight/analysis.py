"""What a model does with one picture: the figures of the paper's supplement, as numbers and arrays.

Shape letters: H x W pixels of the picture, h x w cells of a coarser level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spair_core import cost, metrics
from spair_core.inference import evened, harmless
from spair_core.insight.probes import Attention, Floats, Modulation, watched
from spair_core.network import MULTIPLE, SURE, Spair, coarsen, pad_to_multiple
from spair_core.network.blocks import SparseConvolution, SparseNonLocal

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Thresholds on Net_L's probability at which Net_R is run again."""
PSNR_CEILING = 100.0
"""Equal pixels have an infinite PSNR, which no chart holds; it counts as this many dB."""
LOGIT_BINS = 60
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class Truth:
    """What is known of a picture: its true `mask` bool [H, W], and uint8 [H, W, 3] without degradation."""

    mask: NDArray[np.bool_]
    clean: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class LogitHistogram:
    """Numbers of pixels between `edges` [B + 1] of Net_L's logits; all are in `clean` without a truth."""

    edges: Floats
    clean: NDArray[np.int64]
    degraded: NDArray[np.int64]


@dataclass(frozen=True)
class Calibration:
    """By bins of Net_L's probability: its mean, the share truly degraded, pixels; without empty bins."""

    predicted: Floats
    observed: Floats
    pixels: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance between the two, over the pixels."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.pixels))


@dataclass(frozen=True)
class MaskAgreement:
    """The predicted mask against the true one: pixels, and shares in [0, 1]."""

    hits: int
    missed: int
    false: int
    precision: float
    recall: float
    iou: float
    true_density: float
    calibration: Calibration


@dataclass(frozen=True)
class CleanError:
    """|picture - truth|, mean over RGB, in levels of 255, at truly clean pixels: [H, W], NaN elsewhere."""

    before: Floats
    after: Floats

    def means(self) -> tuple[float, float]:
        """Before and after, over the clean pixels; NaN where there are none."""
        if np.isnan(self.before).all():
            return np.nan, np.nan
        return float(np.nanmean(self.before)), float(np.nanmean(self.after))


@dataclass(frozen=True)
class RegionPsnr:
    """PSNR in dB over the truly degraded pixels, the truly clean ones, and all; None over no pixel."""

    degraded: float | None
    clean: float | None
    everywhere: float


@dataclass(frozen=True)
class ThresholdPoint:
    """What a threshold on Net_L's probability gives: the mask's density, its cost, and PSNR."""

    threshold: float
    density: float
    macs_per_pixel: float
    psnr: RegionPsnr | None


@dataclass(frozen=True)
class Analysis:
    """All of it, for the part of the picture whose first pixel is `corner` (y, x).

    `pixel` (y, x) of that part is where SNL was looked at, None where no pixel was found degraded;
    `cost` [H, W] are the multiply-accumulates spent at every pixel. What needs the true mask or the
    clean picture is None without it.
    """

    corner: tuple[int, int]
    picture: NDArray[np.uint8]
    restored: NDArray[np.uint8]
    logits: NDArray[np.float32]
    mask: NDArray[np.bool_]
    truth: Truth | None
    histogram: LogitHistogram
    agreement: MaskAgreement | None
    clean_error: CleanError | None
    input_psnr: RegionPsnr | None
    psnr: RegionPsnr | None
    sweep: tuple[ThresholdPoint, ...]
    modulations: tuple[Modulation, ...]
    pixel: tuple[int, int] | None
    attentions: tuple[Attention, ...]
    cost: Floats

    def numbers(self) -> dict[str, float]:
        """The chief figures by name; those that need what is not known are left out."""
        found = {"density": float(self.mask.mean()), "macs_per_pixel": float(self.cost.mean())}
        if self.agreement is not None:
            names = ("precision", "recall", "iou", "true_density")
            found |= {f"mask.{name}": getattr(self.agreement, name) for name in names}
            found["mask.calibration_error"] = self.agreement.calibration.error
        for name, psnr in (("input", self.input_psnr), ("restored", self.psnr)):
            if psnr is not None:
                found |= {f"psnr.{name}.{k}": v for k, v in asdict(psnr).items() if v is not None}
        if self.clean_error is not None:
            before, after = self.clean_error.means()
            found |= {"clean_error.before": before, "clean_error.after": after}
        for place in self.modulations:
            name = f"sfm.{place.stage}_{place.level}"
            found |= {f"{name}.mean_gap_before": place.gaps(place.before)[0]}
            found |= {f"{name}.mean_gap_after": place.gaps(place.after)[0]}
        return {name: value for name, value in found.items() if np.isfinite(value)}


@torch.inference_mode()
def analyse(
    model: Spair,
    picture: NDArray[np.uint8],
    truth: Truth | None = None,
    *,
    pixel: tuple[int, int] | None = None,
    on_luma: bool = True,
    max_side: int = 1024,
    thresholds: tuple[float, ...] = THRESHOLDS,
) -> Analysis:
    """Look at how the model restores one picture uint8 [H, W, 3], on the model's device.

    `pixel` (y, x) chooses where SNL is looked at (default: where the picture is degraded most); PSNR is
    on Y of YCbCr (`on_luma`) or on RGB. Of a picture with longer sides only `max_side` pixels a side are
    looked at, round the chosen pixel or else in the middle. Raises ValueError where sizes differ, or
    where the pixel lies outside the picture or was found clean.
    """
    _check(picture, truth, pixel)
    corner, rows, columns = _window(picture.shape[:2], pixel, max_side)
    picture = picture[rows, columns]
    if truth is not None:
        truth = Truth(truth.mask[rows, columns], None if truth.clean is None else truth.clean[rows, columns])
    net_r = _NetR(model, picture)
    mask, logits = net_r.mask(model.config.binarize), net_r.logits
    chosen = _choose_pixel(mask, logits, picture, truth)
    if pixel is not None:
        chosen = pixel[0] - corner[0], pixel[1] - corner[1]
        if not mask[chosen]:
            raise ValueError(
                f"the pixel {pixel[0]} {pixel[1]} (row, column) was found clean, and SNL gathers at degraded "
                "pixels only: choose another, or none for the one that is degraded most"
            )
    with watched(model, chosen) as seen:
        restored = net_r.restored(model.config.binarize)
    return Analysis(
        corner,
        picture,
        restored,
        logits,
        mask,
        truth,
        _histogram(logits, truth),
        None if truth is None else _agreement(mask, logits, truth.mask),
        _clean_error(picture, restored, truth),
        _region_psnr(picture, truth, on_luma),
        _region_psnr(restored, truth, on_luma),
        tuple(_sweep(model, net_r, truth, on_luma, thresholds)),
        tuple(seen.modulations),
        chosen,
        tuple(sorted(seen.attentions, key=lambda attention: attention.level)),
        cost_map(model, mask),
    )


class _NetR:
    """A picture behind Net_L: what Net_R makes of it at any threshold on Net_L's probability."""

    def __init__(self, model: Spair, picture: NDArray[np.uint8]) -> None:
        device = next(model.parameters()).device
        pixels = torch.tensor(picture, device=device).permute(2, 0, 1)[None].float() / 255
        self.model, self.size = model, picture.shape[:2]
        self.pixels = pixels
        self.padded = pad_to_multiple(model.stacked(pixels, None))
        self.located = model.localizer(self.padded)
        self.logits: NDArray[np.float32] = self._cut(self.located.logits)[0].cpu().numpy()

    def _cut(self, padded: Tensor) -> Tensor:
        return padded[0, :, : self.size[0], : self.size[1]]

    def _marked(self, threshold: float) -> Tensor:
        return self.located.logits.sigmoid() > threshold

    def mask(self, threshold: float) -> NDArray[np.bool_]:
        """bool [H, W]."""
        return np.asarray(self._cut(self._marked(threshold))[0].cpu())

    def restored(self, threshold: float) -> NDArray[np.uint8]:
        """uint8 [H, W, 3], as `inference` gives it."""
        marked = self._marked(threshold)
        correction = self.model.restorer(self.padded, self.located, self.model.indices(marked))
        restored = self.pixels + self._cut(correction)
        found, sure = (self._cut(mask)[None] for mask in (marked, self._marked(SURE)))
        kept, touched = harmless(self.pixels, restored, self.model.trusted(found, sure))
        kept = evened(kept, touched) if self.model.scales else kept
        return np.asarray((kept[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu())


def _sweep(
    model: Spair, net_r: _NetR, truth: Truth | None, on_luma: bool, thresholds: tuple[float, ...]
) -> Iterator[ThresholdPoint]:
    dense = _dense_macs(model, net_r.size)
    compared = truth is not None and truth.clean is not None
    for threshold in sorted({*thresholds, model.config.binarize}):
        mask = net_r.mask(threshold)
        psnr = _region_psnr(net_r.restored(threshold), truth, on_luma) if compared else None
        macs = dense + float(_sparse_map(model, mask).mean())
        yield ThresholdPoint(threshold, float(mask.mean()), macs, psnr)


def _window(
    size: tuple[int, ...], pixel: tuple[int, int] | None, max_side: int
) -> tuple[tuple[int, int], slice, slice]:
    """The part that is looked at: its first row and column, its rows, its columns."""
    middle = pixel or (size[0] // 2, size[1] // 2)
    top, left = (
        min(max(at - max_side // 2, 0), max(length - max_side, 0))
        for at, length in zip(middle, size, strict=True)
    )
    return (top, left), slice(top, top + max_side), slice(left, left + max_side)


def _check(picture: NDArray[np.uint8], truth: Truth | None, pixel: tuple[int, int] | None) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"the picture must be uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}")
    height, width = picture.shape[:2]
    known = {} if truth is None else {"true mask": truth.mask, "clean picture": truth.clean}
    for name, other in known.items():
        if other is not None and other.shape[:2] != (height, width):
            raise ValueError(f"the {name} is {other.shape[1]}x{other.shape[0]}, the picture {width}x{height}")
    if pixel is not None and not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        raise ValueError(
            f"the pixel {pixel[0]} {pixel[1]} (row, column) lies outside the picture of {height} rows "
            f"and {width} columns"
        )


def _choose_pixel(
    mask: NDArray[np.bool_], logits: NDArray[np.float32], picture: NDArray[np.uint8], truth: Truth | None
) -> tuple[int, int] | None:
    """Where the picture is degraded most (without its clean partner: where Net_L is surest), if anywhere.

    Among the pixels whose cells count as degraded at every level, where there are any.
    """
    severity: NDArray = logits
    if truth is not None and truth.clean is not None:
        severity = np.abs(picture.astype(np.int16) - truth.clean).max(axis=2)
    levels = coarsen(_padded(mask))
    everywhere = torch.stack([_spread(level[0, 0], 2**depth) for depth, level in enumerate(levels)]).all(0)
    for candidates in (everywhere.numpy()[: mask.shape[0], : mask.shape[1]], mask):
        if candidates.any():
            y, x = np.unravel_index(np.where(candidates, severity, -np.inf).argmax(), candidates.shape)
            return int(y), int(x)
    return None


def _histogram(logits: NDArray[np.float32], truth: Truth | None) -> LogitHistogram:
    true = np.zeros(logits.shape, dtype=np.bool_) if truth is None else truth.mask
    edges = np.histogram_bin_edges(logits.astype(np.float64), LOGIT_BINS)
    clean, degraded = (np.histogram(logits[where], edges)[0] for where in (~true, true))
    return LogitHistogram(edges, clean, degraded)


def _agreement(
    mask: NDArray[np.bool_], logits: NDArray[np.float32], true: NDArray[np.bool_]
) -> MaskAgreement:
    hits, union = int((mask & true).sum()), int((mask | true).sum())
    precision, recall = metrics.mask_scores(mask, true)
    return MaskAgreement(
        hits,
        int((true & ~mask).sum()),
        int((mask & ~true).sum()),
        precision,
        recall,
        hits / union if union else 1.0,
        float(true.mean()),
        _calibration(logits, true),
    )


def _calibration(logits: NDArray[np.float32], true: NDArray[np.bool_]) -> Calibration:
    probability = torch.from_numpy(logits).double().sigmoid().numpy().ravel()
    bins = np.minimum((probability * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    pixels = np.bincount(bins, minlength=CALIBRATION_BINS)
    some = pixels > 0
    predicted = np.bincount(bins, probability, CALIBRATION_BINS)[some] / pixels[some]
    observed = np.bincount(bins, true.ravel(), CALIBRATION_BINS)[some] / pixels[some]
    return Calibration(predicted, observed, pixels[some])


def _clean_error(
    picture: NDArray[np.uint8], restored: NDArray[np.uint8], truth: Truth | None
) -> CleanError | None:
    if truth is None or truth.clean is None:
        return None
    target = truth.clean.astype(np.float64)
    before, after = (
        np.where(truth.mask, np.nan, np.abs(shown - target).mean(axis=2)) for shown in (picture, restored)
    )
    return CleanError(before, after)


def _region_psnr(shown: NDArray[np.uint8], truth: Truth | None, on_luma: bool) -> RegionPsnr | None:
    if truth is None or truth.clean is None:
        return None
    a, b = (metrics.luma(shown), metrics.luma(truth.clean)) if on_luma else (shown, truth.clean)

    def over(where: NDArray[np.bool_]) -> float | None:
        return min(metrics.psnr(a[where], b[where]), PSNR_CEILING) if where.any() else None

    return RegionPsnr(over(truth.mask), over(~truth.mask), min(metrics.psnr(a, b), PSNR_CEILING))


def cost_map(model: Spair, mask: NDArray[np.bool_]) -> Floats:
    """Multiply-accumulates spent at every pixel for a mask bool [H, W]; its mean is `cost.count_mask`'s.

    The dense work is spread evenly, and so is work on padding. That of SC and SNL stands where it is
    done: at the degraded pixels, and evenly over a coarser level's degraded cell.
    """
    return _dense_macs(model, mask.shape) + _sparse_map(model, mask)


def _dense_macs(model: Spair, size: tuple[int, ...]) -> float:
    """Multiply-accumulates a pixel that do not depend on the mask."""
    smallest = cost.count_mask(model.config, torch.zeros(1, 1, MULTIPLE, MULTIPLE, dtype=torch.bool))
    padded = [length + -length % MULTIPLE for length in size]
    return smallest.macs_per_pixel * float(np.prod(padded) / np.prod(size))


def _sparse_map(model: Spair, mask: NDArray[np.bool_]) -> Floats:
    levels = coarsen(_padded(mask))
    spent = torch.zeros(levels[0].shape[2:], dtype=torch.float64)
    for depth, (block, level) in enumerate(zip(model.restorer.decoder, levels, strict=True)):
        for module in block.children():
            if isinstance(module, SparseConvolution | SparseNonLocal):
                spent += _spread(module.cell_macs(level)[0, 0].double() / 4**depth, 2**depth)
    within = spent[: mask.shape[0], : mask.shape[1]]
    return (within + (spent.sum() - within.sum()) / mask.size).numpy()


def _padded(mask: NDArray[np.bool_]) -> Tensor:
    """bool 1 x 1 x H' x W', as the network pads a given mask."""
    return pad_to_multiple(torch.from_numpy(mask)[None, None].float()) > 0.5


def _spread(cells: Tensor, times: int) -> Tensor:
    """[h, w] -> [times * h, times * w], every cell repeated."""
    return cells.repeat_interleave(times, 0).repeat_interleave(times, 1)
