"""An analysis drawn: pictures as PNG, charts as SVG. The same analysis gives the same bytes."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spair_core.images import encode_png
from spair_core.insight.analysis import Analysis
from spair_core.insight.probes import Modulation

HIT, MISSED, FALSE = "#009e73", "#d55e00", "#56b4e9"
"""Told apart by the colour-blind too, like all colours here."""
DEGRADED, CLEAN, ALL = "#d55e00", "#0072b2", "#555555"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "spair",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}


def mask_overlay(analysis: Analysis) -> bytes:
    """PNG: the picture in dark grey, with hits, missed and false pixels in HIT, MISSED and FALSE.

    Without a truth, all that was found is in FALSE's colour.
    """
    found = analysis.mask
    true = np.zeros_like(found) if analysis.truth is None else analysis.truth.mask
    shown = np.repeat(_grey(analysis.picture)[..., None] // 2, 3, axis=2)
    for where, colour in ((found & true, HIT), (true & ~found, MISSED), (found & ~true, FALSE)):
        shown[where] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return encode_png(shown)


def localization(analysis: Analysis) -> bytes:
    """SVG: the histogram of Net_L's logits and, with a truth, how well its probabilities are calibrated."""
    histogram, agreement = analysis.histogram, analysis.agreement
    figure, axes = _figure(1, 1 if agreement is None else 2, 3.2)
    left = axes[0, 0]
    known = agreement is not None
    left.stairs(histogram.clean, histogram.edges, fill=True, alpha=0.6, color=CLEAN, label="truly clean")
    if known:
        left.stairs(
            histogram.degraded, histogram.edges, fill=True, alpha=0.6, color=DEGRADED, label="truly degraded"
        )
        left.legend(frameon=False)
    left.set(yscale="log", xlabel="logit", ylabel="pixels", title="Net_L's logits")
    if agreement is not None:
        right, calibration = axes[0, 1], agreement.calibration
        right.plot([0, 1], [0, 1], color=ALL, linewidth=1, linestyle=":", label="perfect")
        right.plot(calibration.predicted, calibration.observed, "o-", color=CLEAN, label="this picture")
        right.set(xlabel="mean probability given", ylabel="share truly degraded", title="Calibration")
        right.legend(frameon=False)
    return _svg(figure)


def clean_error(analysis: Analysis) -> bytes:
    """PNG: the error at the clean pixels before and after, on one scale; degraded pixels are blank."""
    errors = analysis.clean_error
    if errors is None:
        raise ValueError("an error map needs the clean picture")
    maps = {"before": errors.before, "after": errors.after}
    top = max(1.0, *(float(np.nanpercentile(shown, 99.5)) for shown in maps.values()))
    figure, axes = _pictures(analysis.picture, 1, 2)
    for axis, (name, shown) in zip(axes[0], maps.items(), strict=True):
        image = axis.imshow(shown, cmap=_heat("magma"), vmin=0, vmax=top, interpolation="nearest")
        axis.set_title(name)
    figure.colorbar(image, ax=list(axes[0]), extend="max", shrink=0.8, label=f"levels of 255, 0 to {top:.1f}")
    return _png(figure)


def sweep(analysis: Analysis, chosen: float, on: str) -> bytes:
    """SVG: PSNR, density and cost by threshold; `chosen` is the model's own, `on` the planes of PSNR."""
    points = analysis.sweep
    thresholds = [point.threshold for point in points]
    figure, axes = _figure(1, 3, 3.4)
    density, macs, psnr = axes[0]
    density.plot(thresholds, [100 * point.density for point in points], color=ALL)
    if analysis.agreement is not None:
        density.axhline(100 * analysis.agreement.true_density, color=ALL, linestyle=":", label="truth")
        density.legend(frameon=False)
    density.set(title="Degraded pixels", ylabel="% of the picture")
    macs.plot(thresholds, [point.macs_per_pixel / 1000 for point in points], color=ALL)
    macs.set(title="Cost", ylabel="1000 multiply-accumulates a pixel")
    if analysis.input_psnr is None:
        psnr.set_axis_off()
        psnr.text(0.5, 0.5, "PSNR needs the clean picture", ha="center", transform=psnr.transAxes)
    else:
        for name, colour in (("degraded", DEGRADED), ("clean", CLEAN), ("everywhere", ALL)):
            values = [np.nan if p.psnr is None else _number(getattr(p.psnr, name)) for p in points]
            psnr.plot(thresholds, values, color=colour, label=name)
            before = _number(getattr(analysis.input_psnr, name))
            psnr.axhline(before, color=colour, linestyle=":", linewidth=1)
        psnr.set(title=f"PSNR on {on} (dotted: as it came)", ylabel="dB")
        psnr.legend(frameon=False)
    for axis in (density, macs, *([] if analysis.input_psnr is None else [psnr])):
        axis.axvline(chosen, color="black", linewidth=0.8, linestyle="--")
        axis.set(xlabel="threshold", xlim=(0, 1))
    return _svg(figure)


def modulations(analysis: Analysis) -> bytes:
    """SVG: a dot a channel, degraded cells against clean ones, before and after every SFM."""
    places = analysis.modulations
    figure, axes = _figure(2, len(places), 5.2)
    for number, place in enumerate(places):
        axes[0, number].set_title(f"{place.stage} 1/{place.level}")
        for row, name in enumerate(("mean", "deviation")):
            _statistics(axes[row, number], place, name)
    axes[0, 0].legend(frameon=False)
    return _svg(figure)


def _statistics(axis: Axes, place: Modulation, name: str) -> None:
    clean, before, after = (getattr(m, name) for m in (place.clean, place.before, place.after))
    ends = [float(f([clean.min(), clean.max()])) for f in (np.min, np.max)]
    axis.plot(ends, ends, color=ALL, linewidth=1, linestyle=":")
    axis.plot(clean, before, "o", markersize=3, color=DEGRADED, alpha=0.7, label="before")
    axis.plot(clean, after, "o", markersize=3, color=CLEAN, alpha=0.7, label="after")
    axis.set(xlabel=f"{name}, clean cells", ylabel=f"{name}, degraded cells")


def attention(analysis: Analysis) -> bytes:
    """PNG: what SNL draws on at the chosen pixel, over the picture: rows of steps, columns of levels."""
    levels = analysis.attentions
    figure, axes = _pictures(analysis.picture, 2, len(levels))
    faint = np.uint8(128) + _grey(analysis.picture) // 2
    for column, level in enumerate(levels):
        for row, step in enumerate(level.steps):
            axis = axes[row, column]
            axis.imshow(faint, cmap="gray", vmin=0, vmax=255)
            ys, xs = step.weights.nonzero()
            drawn = step.weights[ys, xs]
            top = max(float(np.abs(drawn).max(initial=0)), 1e-12)
            middle = (level.level - 1) / 2
            dots = axis.scatter(
                xs * level.level + middle,
                ys * level.level + middle,
                s=1 + 80 * np.abs(drawn) / top,
                c=drawn,
                cmap="coolwarm",
                vmin=-top,
                vmax=top,
                linewidths=0,
            )
            y, x = (place * level.level + middle for place in level.cell)
            axis.plot(x, y, "+", color="black", markersize=14, markeredgewidth=1.5)
            axis.set_title(f"1/{level.level}, step {row + 1}")
            axis.set(xlim=(-0.5, faint.shape[1] - 0.5), ylim=(faint.shape[0] - 0.5, -0.5))
            figure.colorbar(dots, ax=axis, shrink=0.7)
    return _png(figure)


def attention_lines(analysis: Analysis) -> bytes:
    """SVG: the weights along the row and the column of the chosen pixel, at the finest level."""
    finest = analysis.attentions[0]
    y, x = finest.cell
    figure, axes = _figure(2, 2, 4.4)
    for row, step in enumerate(finest.steps):
        for column, (line, place, name) in enumerate(
            ((step.weights[y], x, "row"), (step.weights[:, x], y, "column"))
        ):
            axis = axes[row, column]
            axis.fill_between(np.arange(len(line)), line, step="mid", color=CLEAN, linewidth=0)
            axis.axvline(place, color=DEGRADED, linewidth=1)
            axis.set(title=f"step {row + 1}, along the {name}", xlabel="cell", ylabel="weight")
    return _svg(figure)


def cost(analysis: Analysis) -> bytes:
    """PNG: the multiply-accumulates spent at every pixel, in thousands."""
    figure, axes = _pictures(analysis.picture, 1, 1)
    image = axes[0, 0].imshow(analysis.cost / 1000, cmap=_heat("viridis"), interpolation="nearest")
    figure.colorbar(image, ax=axes[0, 0], shrink=0.8, label="1000 multiply-accumulates")
    return _png(figure)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(picture.mean(axis=2).astype(np.uint8))


def _heat(name: str) -> matplotlib.colors.Colormap:
    return matplotlib.colormaps[name].with_extremes(bad="0.85")


def _figure(rows: int, columns: int, height: float) -> tuple[Figure, NDArray[Any]]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, height), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False)


def _pictures(picture: NDArray[np.uint8], rows: int, columns: int) -> tuple[Figure, NDArray[Any]]:
    """Axes without ticks, of the picture's proportions."""
    height, width = picture.shape[:2]
    figure, axes = _figure(rows, columns, rows * (9 / columns * height / width + 0.4))
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def _svg(figure: Figure) -> bytes:
    return _saved(figure, format="svg", metadata={"Date": None})


def _png(figure: Figure) -> bytes:
    return _saved(figure, format="png", dpi=120, metadata={"Software": None})


def _saved(figure: Figure, **options: Any) -> bytes:
    stream = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(stream, **options)
    return stream.getvalue()
