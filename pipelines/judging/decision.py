"""Whether a candidate deserves the champion's place: by its task's measure, on clips, on clean pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.judging.clips import ClipResult
from pipelines.judging.evaluation import SetResult
from pipelines.judging.untouched import Untouched
from spair_core.degradations import catalogue
from spair_core.degradations.degradation import Measure

UNITS = {"Y": "dB", "RGB": "dB (RGB)", "Lab": "of Lab error taken away"}
NOBODY = "the pictures as they came (there is no champion)"


@dataclass(frozen=True)
class Decision:
    """Whether to promote (or to roll back), and why or why not."""

    promote: bool
    reason: str


@dataclass(frozen=True)
class Bars:
    """What a candidate must reach."""

    margin: float = 0.05
    """By which the mean over the sets must be better: dB of PSNR, on Y for rain and raindrops and on RGB for
    blur; for shadows the mean absolute error in Lab, over the whole picture."""
    tolerance: float = 0.1
    """By which no single set (and no clip) may be worse."""
    clean_psnr: float = 35.0
    """dB of PSNR (RGB) that clean pictures must keep on average, against themselves."""
    clean_tolerance: float = 0.5
    """dB by which the candidate may keep them worse than the champion does."""
    flicker_tolerance: float = 0.05
    """By which clips' flicker, over that of the truth, may be further from 1 than the champion's."""
    contrast: float = 0.85
    """Share of its contrast that what truly stands still in clips (markings, clocks) must keep,"""
    contrast_tolerance: float = 0.02
    """and by how much less of it than with the champion."""


def all_of(decisions: Sequence[Decision]) -> Decision:
    """One decision of several: what speaks against it, or else everything that speaks for it."""
    against = [decision for decision in decisions if not decision.promote]
    return Decision(not against, "; ".join(decision.reason for decision in against or decisions))


def measure_of(task: str) -> Measure:
    """What models of a task are judged by; that of a joint model is written rain+raindrop."""
    measures = catalogue.measures(task)
    return next(iter(measures)) if len(measures) == 1 else "RGB"


def decide(
    candidate: Sequence[SetResult], champion: Sequence[SetResult] | None, bars: Bars, measure: Measure = "Y"
) -> Decision:
    """Hold a candidate against the champion, or against the pictures as they came.

    Both must have been judged on the same pictures; raises ValueError where they were not.
    """
    others = candidate if champion is None else champion
    return _by_gains(
        {result.name: (result.count, _score(result, measure)) for result in candidate},
        {result.name: (result.count, _score(result, measure, champion is None)) for result in others},
        bars,
        UNITS[measure],
        NOBODY if champion is None else "the champion",
    )


def _score(result: SetResult, measure: Measure, as_it_came: bool = False) -> float:
    """More is better."""
    if measure == "Lab":
        lab = result.input_lab if as_it_came else result.lab
        return -lab.mae["all"] if lab else math.nan
    name = {"Y": "psnr_y", "RGB": "psnr_rgb"}[measure]
    return float(getattr(result, f"input_{name}" if as_it_came else name))


def decide_clips(
    candidate: Sequence[ClipResult], champion: Sequence[ClipResult] | None, bars: Bars
) -> Decision:
    """The same on clips with their truth: by PSNR on Y, and by how steady they are.

    Flicker may be no further from the truth's than the champion's (or than that of the clips as they came),
    and what truly stands still keeps its contrast.
    """
    others = candidate if champion is None else champion
    before = "input_psnr_y" if champion is None else "psnr_y"
    gained = _by_gains(
        {clip.name: (clip.frames, clip.psnr_y) for clip in candidate},
        {clip.name: (clip.frames, getattr(clip, before)) for clip in others},
        bars,
        UNITS["Y"],
        NOBODY.replace("pictures", "clips") if champion is None else "the champion",
    )
    return all_of([gained, _by_flicker(candidate, champion, bars), _by_contrast(candidate, champion, bars)])


def decide_clean(candidate: Untouched, champion: Untouched | None, bars: Bars) -> Decision:
    """Whether a candidate leaves clean pictures clean: enough of them, and nearly as much as the champion.

    Both must have been judged on the same pictures.
    """
    kept = f"clean pictures keep {candidate.psnr:.2f} dB"
    if candidate.psnr < bars.clean_psnr:
        return Decision(False, f"{kept}; {bars.clean_psnr} dB are asked for")
    if champion is not None and candidate.psnr < champion.psnr - bars.clean_tolerance:
        return Decision(
            False,
            f"{kept}, with the champion {champion.psnr:.2f} dB; {bars.clean_tolerance} dB less is allowed",
        )
    return Decision(True, kept)


Scores = Mapping[str, tuple[int, float]]
"""By name of a set: how many were judged, and what they score; more is better."""


def _by_gains(candidate: Scores, champion: Scores, bars: Bars, unit: str, against: str) -> Decision:
    gains = {}
    for name, (count, score) in candidate.items():
        others, bar = champion.get(name, (0, math.nan))
        if count != others or count == 0:
            raise ValueError(f"{name}: judged {count} pictures for one and {others} for the other")
        gains[name] = score - bar
        if not math.isfinite(gains[name]):
            raise ValueError(f"{name}: there is no truth to judge a candidate by")
    mean = sum(gains.values()) / len(gains)
    worst = min(gains, key=lambda name: gains[name])
    if gains[worst] < -bars.tolerance:
        least = f"at most {bars.tolerance} worse is allowed"
        return Decision(False, f"{gains[worst]:+.2f} {unit} against {against} on {worst}; {least}")
    average = f"{mean:+.2f} {unit} against {against} on average"
    if mean < bars.margin:
        return Decision(False, f"{average}; {bars.margin:+} is asked for")
    return Decision(True, f"{average}, {gains[worst]:+.2f} on {worst}, its worst")


def _by_flicker(
    candidate: Sequence[ClipResult], champion: Sequence[ClipResult] | None, bars: Bars
) -> Decision:
    flicker = _mean(clip.flicker for clip in candidate)
    if champion is None:
        other, whose = _mean(clip.input_flicker for clip in candidate), "as they came"
    else:
        other, whose = _mean(clip.flicker for clip in champion), "with the champion"
    if not math.isfinite(flicker):
        return Decision(True, "flicker could not be measured")
    told = f"clips flicker {flicker:.3f} times as much as their truth, {whose} {other:.3f}"
    return Decision(not abs(flicker - 1) > abs(other - 1) + bars.flicker_tolerance, told)


def _by_contrast(
    candidate: Sequence[ClipResult], champion: Sequence[ClipResult] | None, bars: Bars
) -> Decision:
    contrast = _mean(clip.contrast for clip in candidate)
    if not math.isfinite(contrast):
        return Decision(True, "nothing stands still in the clips")
    told = f"what stands still keeps {contrast:.3f} of its contrast"
    if contrast < bars.contrast:
        return Decision(False, f"{told}; {bars.contrast} is asked for")
    other = _mean(clip.contrast for clip in champion or ())
    if contrast < other - bars.contrast_tolerance:
        return Decision(
            False, f"{told}, with the champion {other:.3f}; {bars.contrast_tolerance} less is allowed"
        )
    return Decision(True, told)


def _mean(values: Iterable[float]) -> float:
    """Of those that could be measured; NaN, with which no comparison holds, where none could."""
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
