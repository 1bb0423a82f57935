"""A candidate against the champion: on sets by its task's measure, on clips, and on clean pictures."""

from dataclasses import replace

import pytest

from pipelines.judging.clips import ClipResult
from pipelines.judging.decision import Bars, Decision, all_of, decide, decide_clean, decide_clips, measure_of
from pipelines.judging.evaluation import SetResult, WorstGain
from pipelines.judging.untouched import Untouched
from spair_core.degradations.catalogue import DEGRADATIONS
from spair_core.metrics import LabErrors

BARS = Bars(margin=0.05, tolerance=0.1)


def result(name, psnr, count=5, before=25.0, rgb=None):
    rgb = psnr if rgb is None else rgb
    return SetResult(
        name, count, psnr, 0.9, rgb, 0.9, before, WorstGain("a", 0), 1, 1, 0.1, 1, input_psnr_rgb=before - 2
    )


def shadow(name, error, before=8.0):
    lab, input_lab = (LabErrors({"all": value}, {"all": value}) for value in (error, before))
    return replace(result(name, 30), lab=lab, input_lab=input_lab)


def clip(name, psnr, flicker=1.0, contrast=0.98, **other):
    measured = {"input_psnr_y": 25.0, "input_flicker": 1.5, "frames": 9, **other}
    return ClipResult(name, psnr_y=psnr, flicker=flicker, contrast=contrast, **measured)


def left(psnr):
    return Untouched("models:/rain/1", 3, psnr, ("a", psnr - 5), 0.01)


def test_a_candidate_must_be_better_on_average_and_nowhere_much_worse():
    better = decide([result("a", 31), result("b", 30)], [result("a", 30), result("b", 30)], BARS)
    assert better.promote
    assert "+0.50 dB" in better.reason
    assert not decide([result("a", 30.01)], [result("a", 30)], BARS).promote
    worse_once = decide([result("a", 35), result("b", 29)], [result("a", 30), result("b", 30)], BARS)
    assert not worse_once.promote
    assert "on b" in worse_once.reason
    assert decide([result("a", 26)], None, BARS).promote
    assert not decide([result("a", 24)], None, BARS).promote
    with pytest.raises(ValueError, match="judged 5 pictures for one and 4"):
        decide([result("a", 26)], [result("a", 26, count=4)], BARS)


def test_both_must_have_been_judged_on_the_same_pictures():
    def without(key, psnr):
        return [replace(result("a", psnr), rejected=((key, "damaged"),))]

    assert decide(without("hard", 31), without("hard", 30), BARS).promote
    with pytest.raises(ValueError, match="a: judged for one and not for the other: easy, hard"):
        decide(without("hard", 31), without("easy", 30), BARS)


def test_each_task_is_judged_by_its_own_measure():
    assert {one.name: measure_of(one.name) for one in DEGRADATIONS} == {
        one.name: one.judged_on for one in DEGRADATIONS
    }
    assert [measure_of(task) for task in ("rain", "rain+raindrop", "blur", "shadow", "rain+shadow")] == [
        *("Y", "Y", "RGB", "Lab", "RGB")
    ]
    candidate, champion = [result("a", 31, rgb=28)], [result("a", 30, rgb=29)]
    assert decide(candidate, champion, BARS, "Y").promote
    assert not decide(candidate, champion, BARS, "RGB").promote
    assert not decide([result("a", 24, rgb=24)], None, BARS, "Y").promote
    assert decide([result("a", 24, rgb=24)], None, BARS, "RGB").promote


def test_less_error_in_lab_is_better():
    better = decide([shadow("istd", 5.0)], [shadow("istd", 5.5)], BARS, "Lab")
    assert better.promote
    assert "+0.50 of Lab error taken away against the champion" in better.reason
    assert not decide([shadow("istd", 5.5)], [shadow("istd", 5.0)], BARS, "Lab").promote
    assert decide([shadow("istd", 7.0)], None, BARS, "Lab").promote
    assert not decide([shadow("istd", 9.0)], None, BARS, "Lab").promote
    with pytest.raises(ValueError, match="no truth to judge"):
        decide([result("istd", 30)], None, BARS, "Lab")


def test_clips_must_gain_and_stay_as_steady():
    assert decide_clips([clip("a", 31)], [clip("a", 30)], BARS).promote
    assert not decide_clips([clip("a", 30)], [clip("a", 31)], BARS).promote
    assert decide_clips([clip("a", 26)], None, BARS).promote
    flickers = decide_clips([clip("a", 31, flicker=1.2)], [clip("a", 30, flicker=1.1)], BARS)
    assert not flickers.promote
    assert "flicker 1.200 times as much as their truth, with the champion 1.100" in flickers.reason
    # Too smooth is as far from the truth as too restless; the champion itself may be either.
    assert not decide_clips([clip("a", 31, flicker=0.8)], [clip("a", 30, flicker=1.1)], BARS).promote
    assert decide_clips([clip("a", 31, flicker=0.9)], [clip("a", 30, flicker=1.1)], BARS).promote
    assert not decide_clips([clip("a", 31, flicker=1.6)], None, BARS).promote
    assert decide_clips([clip("a", 31, flicker=1.5)], None, BARS).promote


def test_a_clip_does_not_make_up_for_the_flicker_of_another():
    calm = [clip("a", 30), clip("b", 30)]
    opposite = decide_clips([clip("a", 31, flicker=0.2), clip("b", 31, flicker=1.8)], calm, BARS)
    assert opposite.reason == (
        "clips flicker 1.000 times as much as their truth, with the champion 1.000; 0.800 further from 1 a "
        "clip, 0.05 is allowed"
    )
    many = [clip(str(k), 31) for k in range(9)]
    worst = decide_clips([*many, clip("a", 31, flicker=0.7)], [*many, clip("a", 30)], Bars(margin=0))
    assert not worst.promote
    assert worst.reason.endswith("0.300 further from 1 on a, 0.2 is allowed")
    assert decide_clips([*many, clip("a", 31, flicker=0.85)], [*many, clip("a", 30)], Bars(margin=0)).promote


def test_a_clip_does_not_make_up_for_the_contrast_of_another():
    opposite = decide_clips([clip("a", 31, contrast=0.0), clip("b", 31, contrast=2.0)], None, BARS)
    assert opposite.reason == "what stands still keeps 0.500 of its contrast; 0.85 is asked for"
    many = [clip(str(k), 31, contrast=1.0) for k in range(9)]
    erased = decide_clips([*many, clip("a", 31, contrast=0.0)], None, BARS)
    assert not erased.promote
    assert erased.reason.endswith("0.900 of its contrast, 0.000 on a; 0.7 is asked for of each clip")
    assert decide_clips([*many, clip("a", 31, contrast=0.75)], None, BARS).promote


def test_what_stands_still_in_clips_keeps_its_contrast():
    painted_over = decide_clips([clip("a", 31, contrast=0.7)], None, BARS)
    assert not painted_over.promote
    assert painted_over.reason == "what stands still keeps 0.700 of its contrast; 0.85 is asked for"
    assert not decide_clips([clip("a", 31, contrast=0.94)], [clip("a", 30)], BARS).promote
    assert decide_clips([clip("a", 31, contrast=0.97)], [clip("a", 30)], BARS).promote


def test_what_clips_do_not_tell_speaks_against_nobody():
    nan = float("nan")
    moving = [clip("a", 31, flicker=nan, contrast=nan)]
    assert decide_clips(moving, [clip("a", 30)], BARS).promote
    with pytest.raises(ValueError, match="a: there is no truth to judge a candidate by"):
        decide_clips([clip("a", nan)], [clip("a", nan)], BARS)
    with pytest.raises(ValueError, match="a: judged 0 pictures"):
        decide_clips([clip("a", nan, frames=0)], [clip("a", 30)], BARS)


def test_clean_pictures_must_stay_clean():
    def clean(candidate, champion):
        return decide_clean(candidate, champion, Bars(clean_psnr=40, clean_tolerance=0.5))

    assert clean(left(41), None).promote
    assert not clean(left(39.9), None).promote
    assert clean(left(41), left(41.4)).promote
    worse = clean(left(41), left(41.6))
    assert not worse.promote
    assert "with the champion 41.60 dB" in worse.reason


def test_one_reason_against_outweighs_all_others():
    good, bad = Decision(True, "good"), Decision(False, "bad")
    assert all_of([good, good]) == Decision(True, "good; good")
    assert all_of([good, bad]) == bad
