"""An analysis as a page to read: one HTML file with its pictures, charts and tables inside."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from pipelines.reports import figures, markup
from pipelines.reports.markup import image, note, section, table
from spair_core import images
from spair_core.images import Picture
from spair_core.insight.analysis import Analysis, RegionPsnr
from spair_core.insight.probes import DIRECTIONS
from spair_core.weights import ModelCard

STYLE = f"""
.hit {{ color: {figures.HIT} }} .missed {{ color: {figures.MISSED} }} .false {{ color: {figures.FALSE} }}
"""


def index(
    model: str, numbers: Mapping[str, Mapping[str, float]], rejected: Sequence[tuple[str, str]] = ()
) -> str:
    """The page that links those of several pictures: `numbers` by picture, and (name, reason) of the rest."""
    names = sorted({name for found in numbers.values() for name in found if not name.startswith("sfm.")})
    rows = [[picture, *(found.get(name) for name in names)] for picture, found in numbers.items()]
    links = "".join(f'<li><a href="{quote(p)}.html">{html.escape(p)}</a></li>' for p in numbers)
    notes = [note(f"rejected: {name}: {reason}") for name, reason in rejected]
    shown = [table(["picture", *names], rows)] if rows else []
    return _document(f"Analysis of {model}", f"<ul>{links}</ul>", *shown, *notes)


def page(name: str, model: str, card: ModelCard, found: Analysis, on: str) -> str:
    """The page of one picture; `on` names the planes that PSNR is computed on."""
    height, width = found.mask.shape
    about = f"Model {model} (task {card.task}); {width}x{height} pixels"
    if found.corner != (0, 0):
        about += f", cut from row {found.corner[0]} and column {found.corner[1]} on"
    return _document(
        f"{name}: what the model does",
        note(f"{about}."),
        *_left_out(found),
        _pictures(found),
        _mask_section(found, card),
        _clean_error_section(found),
        _sweep_section(found, card.network.binarize, on),
        _modulation_section(found),
        _attention_section(found),
        _cost_section(found),
    )


def _document(title: str, *parts: str) -> str:
    return markup.document(title, *parts, style=STYLE)


def _chart(caption: str, data: bytes) -> str:
    return image(caption, data, "svg+xml")


def _photo(caption: str, pixels: NDArray[np.uint8]) -> str:
    return image(caption, images.encode(Picture(pixels, "JPEG")), "jpeg")


def _left_out(found: Analysis) -> Iterator[str]:
    if found.truth is None:
        yield note(
            "Neither the clean picture nor the true mask was given: the mask's scores, the error on clean "
            "pixels and PSNR are left out."
        )
    elif found.truth.clean is None:
        yield note("The clean picture was not given: the error on clean pixels and PSNR are left out.")


def _pictures(found: Analysis) -> str:
    shown = [_photo("as it came", found.picture), _photo("restored", found.restored)]
    if found.truth is not None and found.truth.clean is not None:
        shown.append(_photo("clean", found.truth.clean))
    return f'<div class="row">{"".join(shown)}</div>'


def _mask_section(found: Analysis, card: ModelCard) -> str:
    says = (
        "Net_L's logits, and the pixels whose probability exceeds "
        f"{card.network.binarize:g}: the mask that Net_R works on (paper, section 3.1)."
    )
    parts = [image(f"found degraded: {found.mask.mean():.1%}", figures.mask_overlay(found))]
    if found.agreement is not None:
        a = found.agreement
        says = (
            f"The predicted mask against the true one, which marks {a.true_density:.1%} of the pixels "
            f"(differences over {card.mask_threshold:g} of the range, unless a mask was given). It hits what "
            f"is {_swatch('hit', 'green')}, misses what is {_swatch('missed', 'orange')} and "
            f"marks what is {_swatch('false', 'blue')} for nothing (supplement: predicted masks beside "
            "the ground truth)."
        )
        head = ["precision", "recall", "IoU", "hits", "missed", "false", "calibration error"]
        row = [a.precision, a.recall, a.iou, a.hits, a.missed, a.false, a.calibration.error]
        parts.append(table(head, [row]))
    parts.append(_chart("pixels by logit; calibration where the truth is known", figures.localization(found)))
    return section("The mask", says, *parts)


def _swatch(kind: str, name: str) -> str:
    return f'<b class="{kind}">{name}</b>'


def _clean_error_section(found: Analysis) -> str:
    if found.clean_error is None:
        return ""
    before, after = found.clean_error.means()
    if np.isnan(before):
        return section("Error on clean pixels", "No pixel of this picture is truly clean.")
    says = (
        "What restoring does to pixels that needed none: |picture - truth|, the mean over RGB, at the truly "
        "clean pixels alone; degraded ones are blank (supplement: error maps on the clean pixels)."
    )
    rows = [["before", before], ["after", after]]
    return section(
        "Error on clean pixels",
        says,
        table(["", "mean error, levels of 255"], rows),
        image("both maps on one scale", figures.clean_error(found)),
    )


def _sweep_section(found: Analysis, chosen: float, on: str) -> str:
    says = (
        "Net_R run again with the mask at every threshold on Net_L's probability: how many pixels are "
        f"marked, what that costs, and PSNR on {on} over the truly degraded and the truly clean pixels apart "
        "(supplement: PSNR as the threshold varies). The dashed line is the model's own threshold."
    )
    head = ["threshold", "density", "MAC/pixel", "degraded, dB", "clean, dB", "everywhere, dB"]
    rows = [["as it came", None, None, *_decibels(found.input_psnr)]]
    rows += [
        [f"{p.threshold:.2f}", p.density, round(p.macs_per_pixel), *_decibels(p.psnr)] for p in found.sweep
    ]
    chart = _chart("density, cost and PSNR by threshold", figures.sweep(found, chosen, on))
    return section("The threshold", says, chart, table(head, rows))


def _decibels(psnr: RegionPsnr | None) -> list[float | None]:
    return [None] * 3 if psnr is None else [psnr.degraded, psnr.clean, psnr.everywhere]


def _modulation_section(found: Analysis) -> str:
    title = "Feature statistics at SFM"
    if not found.modulations:
        return section(
            title, "No SFM had both degraded and clean cells to work on, or this network has none."
        )
    says = (
        "Mean and deviation of every channel over the degraded cells against those over the clean ones, "
        "before SFM (its fused input F) and after (eq. 1). After it they should coincide, but for the "
        "guards: the ratio of deviations is bounded, and the correction fades where either kind has few "
        "cells (supplement: feature statistics before and after). The table gives means over the channels."
    )
    head = ["place", "degraded cells", "clean cells", "|mean gap| / deviation: before", "after"]
    head += ["|deviation ratio - 1|: before", "after"]
    rows = []
    for place in found.modulations:
        (mean_before, ratio_before), (mean_after, ratio_after) = (
            place.gaps(place.before),
            place.gaps(place.after),
        )
        cells = [f"{place.stage} 1/{place.level}", place.degraded_cells, place.clean_cells]
        rows.append([*cells, mean_before, mean_after, ratio_before, ratio_after])
    return section(title, says, _chart("a dot a channel", figures.modulations(found)), table(head, rows))


def _attention_section(found: Analysis) -> str:
    title = "What SNL draws on"
    if found.pixel is None or not found.attentions:
        return section(title, "No pixel was found degraded, or this network has no sparse non-local module.")
    y, x = (found.pixel[axis] + found.corner[axis] for axis in (0, 1))
    says = (
        f"The pixel at row {y} and column {x} (the cross) gathers from the clean cells of its row and "
        "column; a dot is a weight e_k(p) o_q, large where the cell counts for much, red where it is added "
        "and blue where it is subtracted (eq. 3-5; supplement: attention of a pixel). A level where its cell "
        "counts as clean is not shown. The table gives, for each direction, e_k and how many of the clean "
        "cells there the softmax in effect draws on (1 / the sum of o_q squared)."
    )
    rows = []
    for level in found.attentions:
        for number, step in enumerate(level.steps, 1):
            values = zip(step.blend.tolist(), step.keys.tolist(), step.focus.tolist(), strict=True)
            cells = [f"{e:+.3f}, {focus:.1f} of {keys}" for e, keys, focus in values]
            rows.append([f"1/{level.level}, step {number}", *cells])
    return section(
        title,
        says,
        image("weights over the picture, by step and level", figures.attention(found)),
        _chart("weights along the row and column at the finest level", figures.attention_lines(found)),
        table(["", *DIRECTIONS], rows),
    )


def _cost_section(found: Analysis) -> str:
    even = float(found.cost.min())
    says = (
        "Multiply-accumulates spent at every pixel: the dense part is spread evenly, SC and SNL stand at the "
        "degraded cells where they work, so that the work follows the degraded area (paper, section 3.2)."
    )
    rows = [["mean", round(float(found.cost.mean()))], ["least", round(even)]]
    rows += [["greatest", round(float(found.cost.max()))]]
    return section(
        "What every pixel costs",
        says,
        table(["", "multiply-accumulates a pixel"], rows),
        image("cost map", figures.cost(found)),
    )
