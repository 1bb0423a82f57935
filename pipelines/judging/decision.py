"""Whether a candidate deserves the champion's place: by its task's measure, on clips, on clean pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    """By which a clip's flicker, over that of its truth, may on average be further from 1 than the
    champion's."""
    clip_flicker_tolerance: float = 0.2
    """By which that of no single clip may be further from 1 than the champion's."""
    contrast: float = 0.85
    """Share of its contrast that what truly stands still in clips (markings, clocks) must keep on average,"""
    contrast_tolerance: float = 0.02
    """and by how much less of it than with the champion."""
    clip_contrast: float = 0.7
    """Share of its contrast that what truly stands still must keep in every single clip."""


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
        {result.name: _set_score(result, measure) for result in candidate},
        {result.name: _set_score(result, measure, champion is None) for result in others},
        bars,
        UNITS[measure],
        NOBODY if champion is None else "the champion",
    )


@dataclass(frozen=True)
class Score:
    """How many of a set were judged, and what they score, more being better; `rejected` are the others."""

    count: int
    value: float
    rejected: frozenset[str] = frozenset()


def _set_score(result: SetResult, measure: Measure, as_it_came: bool = False) -> Score:
    rejected = frozenset(key for key, _ in result.rejected)
    return Score(result.count, _measured(result, measure, as_it_came), rejected)


def _measured(result: SetResult, measure: Measure, as_it_came: bool) -> float:
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
    and what truly stands still keeps its contrast: on average, and nearly so in every clip.
    """
    others = candidate if champion is None else champion
    before = "input_psnr_y" if champion is None else "psnr_y"
    gained = _by_gains(
        {clip.name: Score(clip.frames, clip.psnr_y) for clip in candidate},
        {clip.name: Score(clip.frames, getattr(clip, before)) for clip in others},
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


Scores = Mapping[str, Score]
"""By name of a set."""


def _by_gains(candidate: Scores, champion: Scores, bars: Bars, unit: str, against: str) -> Decision:
    gains = {name: _gain(name, score, champion.get(name)) for name, score in candidate.items()}
    mean = sum(gains.values()) / len(gains)
    worst = min(gains, key=lambda name: gains[name])
    if gains[worst] < -bars.tolerance:
        least = f"at most {bars.tolerance} worse is allowed"
        return Decision(False, f"{gains[worst]:+.2f} {unit} against {against} on {worst}; {least}")
    average = f"{mean:+.2f} {unit} against {against} on average"
    if mean < bars.margin:
        return Decision(False, f"{average}; {bars.margin:+} is asked for")
    return Decision(True, f"{average}, {gains[worst]:+.2f} on {worst}, its worst")


def _gain(name: str, score: Score, other: Score | None) -> float:
    """By how much one is better on the same pictures. Raises ValueError where they are not the same."""
    other = other or Score(0, math.nan)
    if score.count != other.count or score.count == 0:
        raise ValueError(f"{name}: judged {score.count} pictures for one and {other.count} for the other")
    if once := score.rejected ^ other.rejected:
        raise ValueError(f"{name}: judged for one and not for the other: {', '.join(sorted(once))}")
    gain = score.value - other.value
    if not math.isfinite(gain):
        raise ValueError(f"{name}: there is no truth to judge a candidate by")
    return gain


def _by_flicker(
    candidate: Sequence[ClipResult], champion: Sequence[ClipResult] | None, bars: Bars
) -> Decision:
    flicker = _known({clip.name: clip.flicker for clip in candidate})
    if champion is None:
        whose, before = "as they came", {clip.name: clip.input_flicker for clip in candidate}
    else:
        whose, before = "with the champion", {clip.name: clip.flicker for clip in champion}
    others = {name: value for name, value in _known(before).items() if name in flicker}
    if not others:
        return Decision(True, "flicker could not be measured")
    told = f"clips flicker {_mean(flicker):.3f} times as much as their truth, {whose} {_mean(others):.3f}"
    # Each by itself: a clip that is too restless does not make up for one that is too smooth.
    further = {name: abs(flicker[name] - 1) - abs(other - 1) for name, other in others.items()}
    mean, worst = _mean(further), max(further, key=lambda name: further[name])
    if mean > bars.flicker_tolerance:
        return Decision(
            False, f"{told}; {mean:.3f} further from 1 a clip, {bars.flicker_tolerance} is allowed"
        )
    if further[worst] > bars.clip_flicker_tolerance:
        more = f"{further[worst]:.3f} further from 1 on {worst}, {bars.clip_flicker_tolerance} is allowed"
        return Decision(False, f"{told}; {more}")
    return Decision(True, told)


def _by_contrast(
    candidate: Sequence[ClipResult], champion: Sequence[ClipResult] | None, bars: Bars
) -> Decision:
    kept = _kept_contrast(candidate)
    if not kept:
        return Decision(True, "nothing stands still in the clips")
    told = f"what stands still keeps {_mean(kept):.3f} of its contrast"
    if _mean(kept) < bars.contrast:
        return Decision(False, f"{told}; {bars.contrast} is asked for")
    worst = min(kept, key=lambda name: kept[name])
    if kept[worst] < bars.clip_contrast:
        return Decision(
            False, f"{told}, {kept[worst]:.3f} on {worst}; {bars.clip_contrast} is asked for of each clip"
        )
    other = _mean(_kept_contrast(champion or ()))
    if _mean(kept) < other - bars.contrast_tolerance:
        return Decision(
            False, f"{told}, with the champion {other:.3f}; {bars.contrast_tolerance} less is allowed"
        )
    return Decision(True, told)


def _kept_contrast(clips: Sequence[ClipResult]) -> dict[str, float]:
    """By name of a clip in which something stands still. More than all of it does not make up for less."""
    return {name: min(kept, 1.0) for name, kept in _known({c.name: c.contrast for c in clips}).items()}


def _known(values: Mapping[str, float]) -> dict[str, float]:
    """Those that could be measured."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _mean(values: Mapping[str, float]) -> float:
    """NaN, with which no comparison holds, where there are none."""
    return sum(values.values()) / len(values) if values else math.nan
