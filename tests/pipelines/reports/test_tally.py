"""The numbers and samples of a night, whatever its length and order."""

import tracemalloc
from dataclasses import replace

import pytest

from pipelines.reports import tally
from pipelines.reports.tally import Tally
from pipelines.restoration.manifest import FAILED, IGNORED, PASSED, REJECTED, RESTORED
from tests.pipelines.reports.verdicts import verdict


def tallied(verdicts, **values):
    return Tally.of(verdicts, **{"rows": 10, "pictures": 2, **values})


def test_sums_are_of_what_is_done():
    found = tallied([
        verdict("a", degraded_share=0.5),
        verdict("b", PASSED, when="2026-11-27T22:00:10.000+00:00"),
        verdict("c", REJECTED, reason="bad", width=9, height=9, frames=9),
        verdict("d", IGNORED, when=""),
    ])  # fmt: skip
    assert (found.total, found.done, found.lost) == (4, 2, 1)
    assert (found.frames, found.pixels, found.model_seconds) == (4, 20_000, 6.0)
    assert (found.degraded, found.timeline.seconds, found.timeline.undated) == (0.5, 10.0, 1)


def test_reasons_are_grouped_where_only_numbers_and_names_differ():
    reasons = [
        "cut short: 12 of 300 frames",
        "cut short: 13 of 300 frames",
        "H.264 it is not",
        "H.264 it is not",
    ]
    found = tallied(verdict(f"c/{k}.mp4", REJECTED, reason=said) for k, said in enumerate(reasons))
    told = {said: (group.count, group.keys) for _, said, group in found.reasons.commonest()}
    assert told["cut short: # of # frames"] == (2, ["c/0.mp4", "c/1.mp4"])
    assert told["H.264 it is not"] == (2, ["c/2.mp4", "c/3.mp4"])
    one = verdict("cam/x.tar", notes="n/17.png: copied as it was\nn/18.png: copied as it was")
    ((_, said, group),) = tallied([one]).notes.commonest()
    assert (said, group.count) == ("…: copied as it was", 2)
    assert tally.general("s3://b/c/x.png: not found", replace(one, key="c/x.png")).endswith("…: not found")


def test_groups_and_folders_are_bounded(monkeypatch):
    monkeypatch.setattr(tally, "MOST_GROUPS", 5)
    letters = [chr(97 + k) for k in range(20)]
    found = tallied(verdict(f"{name}/x", FAILED, reason=f"reason {name}") for name in letters)
    assert (len(found.reasons.groups), found.reasons.others) == (5, 15)
    assert (len(found.folders), found.other_folders) == (5, 15)


def test_the_timeline_gets_coarser_and_loses_nothing(monkeypatch):
    monkeypatch.setattr(tally, "MOST_BINS", 16)
    moments = [
        f"2026-11-27T22:{minute:02}:{second:02}.000+00:00"
        for minute in range(60)
        for second in range(0, 60, 7)
    ]
    line = tallied(verdict(f"{k}", when=when) for k, when in enumerate(reversed(moments))).timeline
    bars = line.bars(20)
    assert len(bars) <= 20
    assert line.width in tally.SECONDS
    assert sum(bar.items.total() for bar in bars) == len(moments)
    assert sum(bar.frames for bar in bars) == 2 * len(moments)
    empty = tallied([verdict("a"), verdict("b", when="2026-11-27T22:01:00+00:00")]).timeline.bars(100)
    assert [bar.items.total() for bar in (empty[0], empty[1], empty[-1])] == [1, 0, 1]


def test_what_is_sampled_is_the_same_whatever_comes_first():
    items = [verdict(f"{k:03}", degraded_share=k / 100) for k in range(100)]
    one, other = tallied(items), tallied(reversed(items))
    assert one.sample() == other.sample()
    assert one.looked_at() == other.looked_at()
    assert tallied(items, seed=1).sample() != one.sample()
    assert [item.key for _, item in one.looked_at()][:4] == ["099", "098", "000", "001"]
    assert len({item.key for _, item in one.looked_at()}) == 6


def test_lost_items_come_first_and_leave_room():
    items = [verdict(f"r{k}") for k in range(100)] + [verdict(f"p{k}", PASSED) for k in range(2)]
    items += [verdict(f"x{k}", REJECTED) for k in range(30)]
    found = [item.verdict for item in tallied(items).sample()]
    assert found[:5] == [REJECTED] * 5
    assert (found.count(PASSED), found.count(RESTORED), len(found)) == (2, 3, 10)
    assert [item.verdict for item in tallied(items[-30:]).sample()] == [REJECTED] * 10
    assert tally.fair({"a": 1, "b": 50, "c": 50}, 11) == {"a": 1, "b": 5, "c": 5}


@pytest.mark.long
def test_memory_does_not_grow_with_the_night():
    def many(count):
        return (verdict(f"cam{k % 7}/{k:07}.jpg", notes=f"{k} bytes are damaged") for k in range(count))

    def peak(count):
        tracemalloc.start()
        found = Tally.of(many(count), rows=50, pictures=4)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.total == count
        return most

    peak(100)  # what is made once
    # The least of three: other threads of this process allocate beside it.
    many_rows, few_rows = (min(peak(count) for _ in range(3)) for count in (20_000, 2_000))
    assert many_rows < 1.5 * few_rows
