"""The tables of the paper (ICCV 2021, arXiv 2108.08617): its numbers, ours and how far they are apart.

A model is judged on the sets of its task, each as its table is: rain streaks and raindrops on Y,
shadows in CIE Lab, blur on RGB. What is not there is said, and so is what was judged in part.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipelines.judging import evaluation
from pipelines.judging.evaluation import EvaluateConfig, SetResult
from pipelines.judging.paper_tables import (
    ABLATIONS,
    LOCALIZER_EPOCHS,
    TABLES,
    TEST_SETS,
    Measures,
    Row,
    Table,
    score,
)
from pipelines.services import models
from pipelines.services.models import ModelError, ResolvedModel
from spair_core import metrics, weights
from spair_core.degradations import catalogue

INPUT = "the input"

HEADINGS = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 4),
    "bce": ("BCE", 4),
    "S": ("S", 2),
    "NS": ("NS", 2),
    "all": ("all", 2),
}
"""What stands over the paper's figures of a measure, and their decimal places."""
ERRORS = {"psnr": "RMSE", "ssim": "DSSIM"}
"""The errors that the paper derives from PSNR and SSIM."""


@dataclass(frozen=True)
class Line:
    """A row as judged: `ours` is empty where there is nothing to compare, and `pictures` says why.

    `saved` is the relative reduction of the error against each of the others (0.1: a tenth less),
    `paper_saved` that of the paper.
    """

    label: str
    pictures: str
    paper: Measures
    ours: Measures = field(default_factory=dict)
    difference: Measures = field(default_factory=dict)
    paper_saved: dict[str, Measures] = field(default_factory=dict)
    saved: dict[str, Measures] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """A table as judged, by one model or (None) by none of those given."""

    table: str
    title: str
    model: str | None
    lines: tuple[Line, ...]
    note: str = ""


@dataclass(frozen=True)
class Judged:
    """A model and its results on the sets of its task."""

    model: ResolvedModel
    results: list[SetResult]

    @property
    def name(self) -> str:
        """The model as it was asked for, and what it says it was trained on."""
        card = self.model.card
        return f"{self.model.spec} ({card.task}; trained on {card.provenance.get('data', 'unnamed data')})"


def tasks_of(model: ResolvedModel) -> frozenset[str]:
    """What a model takes away, by its card."""
    return catalogue.split_task(model.card.task)


def judge_models(config: EvaluateConfig) -> list[Judged]:
    """Every model of `config` on the sets of its task, and on sets that the paper does not know.

    Raises ModelError before anything is judged; StorageError.
    """
    found = [models.resolve(spec) for spec in config.models or (config.model,)]
    return [Judged(model, evaluation.judge(config, model, leave_out=_foreign(model))) for model in found]


def _foreign(model: ResolvedModel) -> Collection[str]:
    """The paper's sets of other tasks, in lower case."""
    tasks = tasks_of(model)
    return {name.lower() for name, test_set in TEST_SETS.items() if test_set.task not in tasks}


def compare(judged: Sequence[Judged], *, limit: int | None = None) -> list[Comparison]:
    """Tables 1 to 5, S1 and S2, each by every model of its tasks; `limit` is that of the evaluation."""
    found = []
    for table in TABLES:
        fitting = [one for one in judged if tasks_of(one.model) == table.tasks]
        found += [_compared(table, one, limit) for one in fitting] or [_without_model(table)]
    return found


def _without_model(table: Table) -> Comparison:
    why = f"not the model's task ({'+'.join(sorted(table.tasks))})"
    rows = (*table.rows, table.mean) if table.mean else table.rows
    lines = tuple(Line(row.label, why, row.paper, paper_saved=_all_saved(row, row.paper)) for row in rows)
    return Comparison(table.name, table.title, None, lines, table.note)


def _compared(table: Table, judged: Judged, limit: int | None) -> Comparison:
    results = {_canonical(result.name): result for result in judged.results}
    lines = [_line(row, results.get(row.set), limit) for row in table.rows]
    if table.mean:
        lines.append(_mean_line(table.mean, lines))
    return Comparison(table.name, table.title, judged.name, tuple(lines), table.note)


def _line(row: Row, result: SetResult | None, limit: int | None) -> Line:
    paper_saved = _all_saved(row, row.paper)
    if result is None or not result.count:
        why = "not there" if result is None else f"all {len(result.rejected)} rejected"
        return Line(row.label, why, row.paper, paper_saved=paper_saved)
    ours, before = _measures(result, TEST_SETS[row.set].task)
    saved = _all_saved(row, ours) | {INPUT: _saved(before, ours)}
    lab = evaluation.describe_lab(result.lab, result.input_lab) if result.lab and result.input_lab else ""
    return Line(
        row.label,
        _pictures(result, limit),
        row.paper,
        ours,
        _difference(row.paper, ours),
        paper_saved,
        saved,
        lab,
    )


def _mean_line(row: Row, lines: Sequence[Line]) -> Line:
    """The mean of the sets' means, as the paper has it."""
    paper_saved = _all_saved(row, row.paper)
    if not all(line.ours for line in lines):
        return Line(row.label, "needs every set", row.paper, paper_saved=paper_saved)
    ours = {key: sum(line.ours[key] for line in lines) / len(lines) for key in row.paper}
    partial = ", some in part" if any(" of " in line.pictures for line in lines) else ""
    pictures = f"{len(lines)} sets{partial}"
    difference = _difference(row.paper, ours)
    return Line(row.label, pictures, row.paper, ours, difference, paper_saved, _all_saved(row, ours))


def _canonical(name: str) -> str:
    """The paper's spelling of a set, in whatever case it came; another set's name as it is."""
    return next((known for known in TEST_SETS if known.lower() == name.lower()), name)


def _pictures(result: SetResult, limit: int | None) -> str:
    """How much of the set was judged."""
    known = TEST_SETS.get(_canonical(result.name))
    whole = known.pictures if known else None
    words = f"{result.count:,}"
    if result.count != whole:
        cut = limit is not None and limit <= result.count + len(result.rejected)
        words = f"{'first ' if cut else ''}{words}{f' of {whole:,}' if whole else ''}"
    return words + (f", {len(result.rejected)} rejected" if result.rejected else "")


def _measures(result: SetResult, task: str) -> tuple[Measures, Measures]:
    """What the field judges this task by, after restoration and before."""
    judged_on = catalogue.measures(task)
    if judged_on == {"Lab"} and result.lab and result.input_lab:
        return result.lab.mae, result.input_lab.mae
    if judged_on == {"RGB"}:
        return score(result.psnr_rgb, result.ssim_rgb), score(result.input_psnr_rgb)
    return score(result.psnr_y, result.ssim_y), score(result.input_psnr_y)


def _difference(paper: Measures, ours: Measures) -> Measures:
    return {key: ours[key] - value for key, value in paper.items() if key in ours}


def _all_saved(row: Row, after: Measures) -> dict[str, Measures]:
    return {name: _saved(before, after) for name, before in row.others.items()}


def _saved(before: Measures, after: Measures) -> Measures:
    """The relative reduction of each error that both have."""
    return {key: _reduction(key, value, after[key]) for key, value in before.items() if key in after}


def _reduction(key: str, before: float, after: float) -> float:
    """Of RMSE from PSNR, of DSSIM from SSIM, of an error in Lab as it is; NaN where there was none."""
    if key == "psnr":
        return metrics.error_reduction(before, after)
    if key == "ssim":
        return metrics.dissimilarity_reduction(before, after)
    return 1 - after / before if before else math.nan


def compare_ablations(
    results: Mapping[int, Sequence[SetResult]], task: str, *, limit: int | None = None
) -> Comparison:
    """Table 6 from the results of Net1 to Net5 (of a `task`), on AGAN-a, GoPro or any other set."""
    lines = [
        _short_line(
            f"Net{number}, {result.name}",
            result,
            task,
            ABLATIONS[number].get(_canonical(result.name), {}),
            limit,
        )
        for number, judged in sorted(results.items())
        for result in judged
    ]
    title = "ablations: Net1 dense, Net2 + SFM, Net3 + SC, Net4 + non-local, Net5 + SNL"
    return Comparison("6", title, None, tuple(lines))


def compare_localizers(config: EvaluateConfig) -> list[Comparison]:
    """Table S3: the model's Net_R with the Net_L of each of `config.localizers`, a comparison a set.

    A Net_L stands beside the paper's of as many epochs, as its file gives them.
    Raises ModelError, before anything is judged, where a Net_L is of another configuration; StorageError;
    ValueError where not one picture could be judged.
    """
    model = models.resolve(config.model)
    others = [models.resolve(spec) for spec in config.localizers]
    lines: dict[str, list[Line]] = {}
    for other, pair in [(other, with_localizer(model, other)) for other in others]:
        epochs = localizer_epochs(other)
        label = f"{other.spec}, {'epochs not known' if epochs is None else f'{epochs} epochs'}"
        for result in evaluation.evaluate(config, pair):
            paper = LOCALIZER_EPOCHS.get(epochs or 0, {}) if _canonical(result.name) == "AGAN-a" else {}
            line = _short_line(label, result, model.card.task, paper, config.limit)
            lines.setdefault(result.name, []).append(line)
    title = "accuracy of Net_L (BCE of its mask) and what Net_R makes of it; on "
    return [Comparison("S3", title + name, model.spec, tuple(found)) for name, found in sorted(lines.items())]


def with_localizer(model: ResolvedModel, other: ResolvedModel) -> ResolvedModel:
    """The model with the Net_L of another. Raises ModelError where that is of another configuration."""
    network, stranger = model.build(), other.build()
    if network.config.localizer != stranger.config.localizer:
        raise ModelError(
            f"{other.spec} has a Net_L of another configuration than {model.spec}: take one that was trained "
            "with the same preset"
        )
    network.localizer.load_state_dict(stranger.localizer.state_dict())
    return replace(model, data=weights.save(network, model.card))


def localizer_epochs(model: ResolvedModel) -> int | None:
    """For how many epochs a model's Net_L learnt alone, as training wrote it into the file."""
    words = model.card.provenance.get("epochs", "").split()
    return int(words[0]) if words and words[0].isdecimal() else None


def _short_line(label: str, result: SetResult, task: str, paper: Measures, limit: int | None) -> Line:
    """A line of a study: no others to hold it against."""
    if not result.count:
        return Line(label, f"all {len(result.rejected)} rejected", paper)
    bce = {} if math.isnan(result.mask_bce) else {"bce": result.mask_bce}
    known = TEST_SETS.get(_canonical(result.name))
    ours = bce | _measures(result, known.task if known else task)[0]
    return Line(label, _pictures(result, limit), paper, ours, _difference(paper, ours))


def text(comparison: Comparison) -> str:
    """For people: the paper's figure, ours and the difference, and how much less error than others."""
    lines = comparison.lines
    keys = list(dict.fromkeys(key for line in lines for key in (*line.ours, *line.paper)))
    head = ["set", "pictures"]
    for key in keys:
        head += [f"{HEADINGS[key][0]}: paper", "ours", "differ."]
    rows = [head, *(_cells(line, keys) for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = [f"Table {comparison.table}: {comparison.title}"]
    shown += [f"  by {comparison.model}"] if comparison.model else []
    shown += [_aligned(row, widths) for row in rows]
    shown += [f"  {line.label}: {words}" for line in lines for words in _remarks(line)]
    return "\n".join([*shown, f"  note: {comparison.note}"] if comparison.note else shown)


def _cells(line: Line, keys: Sequence[str]) -> list[str]:
    cells = [line.label, line.pictures]
    for key in keys:
        places = HEADINGS[key][1]
        for values, sign in ((line.paper, ""), (line.ours, ""), (line.difference, "+")):
            cells.append(f"{values[key]:{sign}.{places}f}" if key in values else "")
    return cells


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = [f"{cell:<{width}}" for cell, width in zip(cells[:2], widths[:2], strict=True)]
    right = [f"{cell:>{width}}" for cell, width in zip(cells[2:], widths[2:], strict=True)]
    return "  " + "  ".join([*left, *right]).rstrip()


def _remarks(line: Line) -> list[str]:
    """Errors against those of others, and what else there is to say."""

    def shares(saved: Measures) -> str:
        return ", ".join(f"{ERRORS.get(key, key)} {-share:+.1%}" for key, share in saved.items())

    found = [f"error against {name}: {shares(saved)}" for name, saved in line.saved.items() if saved]
    found += [f"the paper's error against {n}: {shares(saved)}" for n, saved in line.paper_saved.items()]
    return [*found, line.note] if line.note else found
