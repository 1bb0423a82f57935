from datetime import UTC, datetime, timedelta

import pytest

from pipelines.restoration.manifest import FAILED, OTHER, REJECTED, RESTORED, Verdict
from pipelines.restoration.plan import Selection, Terms, beside, plan
from pipelines.services.storage import StoredObject

TERMS = Terms("m1", "o1")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def stored(key, identity="e1", modified=NOON):
    return StoredObject(f"s3://raw/{key}", key, 10, identity, modified)


def verdict(key, outcome=RESTORED, **values):
    known = {"source_identity": "e1", "source_digest": "d1", "model_digest": "m1", "options": "o1"}
    return Verdict(key, "picture", outcome, **{**known, **values})


def planned(keys, known=(), **selection):
    return list(plan(map(stored, keys), iter(known), Selection(**selection), TERMS))


def test_both_sides_are_walked_at_once():
    pairs = beside(map(stored, "bcd"), map(verdict, "acef"))
    assert [(item and item.key, known and known.key) for item, known in pairs] == [
        (None, "a"), ("b", None), ("c", "c"), ("d", None), (None, "e"), (None, "f")
    ]  # fmt: skip


def test_neither_side_is_read_ahead():
    def endless():
        number = 0
        while True:
            yield stored(f"{number:09d}.png")
            number += 1

    coming = plan(endless(), iter(()), Selection(), TERMS)
    assert [next(coming).item.key for _ in range(2)] == ["000000000.png", "000000001.png"]


def test_what_is_settled_needs_no_work():
    known = [
        verdict("a.png"),
        verdict("b.png", FAILED),
        verdict("c.png", REJECTED),
        verdict("d.png", options="o2"),
        verdict("e.png", source_identity="e2"),
    ]
    found = planned([*(item.key for item in known), "f.mp4", "g.txt"], known)
    assert [one.settled for one in found] == [True, False, True, False, False, False, False]
    assert [one.settled_digest for one in found] == ["d1", "", "d1", "", "d1", "", ""]
    assert [one.kind for one in found[-2:]] == ["clip", OTHER]


def test_patterns_dates_and_limits_select():
    keys = ["cam1/a.png", "cam1/b.mp4", "cam2/a.png", "x.png"]

    def chosen(**selection):
        return [one.item.key for one in planned(keys, **selection)]

    assert chosen(include=("cam1/*", "x*")) == ["cam1/a.png", "cam1/b.mp4", "x.png"]
    assert chosen(exclude=("*.png",)) == ["cam1/b.mp4"]
    assert chosen(include=("cam*",), exclude=("cam2/*",), limit=1) == ["cam1/a.png"]
    assert chosen(since="2026-11-20") == keys
    assert chosen(since="2026-11-20T13:00+01:00") == keys
    assert chosen(since="2026-11-20T12:00:01") == []
    old = [stored("a.png", modified=NOON - timedelta(days=9)), stored("b.png", modified=None)]
    found = plan(old, iter(()), Selection(since="2026-11-20"), TERMS)
    assert [one.item.key for one in found] == ["b.png"]  # where the store does not say, it may be new
    with pytest.raises(ValueError, match="ISO 8601, not 'yesterday'"):
        Selection(since="yesterday")


def test_what_failed_or_was_rejected_is_driven_anew():
    known = [verdict("a.png"), verdict("b.png", FAILED), verdict("c.png", REJECTED)]
    keys = ["a.png", "b.png", "c.png", "d.png"]
    for redrive, key in (("failed", "b.png"), ("rejected", "c.png")):
        (one,) = planned(keys, known, redrive=redrive)
        assert (one.item.key, one.settled, one.settled_digest) == (key, False, "")


def test_what_is_refused_by_its_name_is_so_for_good():
    """Settled as what is rejected for its bytes is, and refused again where it was changed."""
    keys, terms = ["../a.png", "b\udce9.png"], Terms("m1", "o1", in_folder=True)
    found = list(plan(map(stored, keys), iter(()), Selection(), terms))
    assert [(one.todo, one.settled) for one in found] == [(False, False)] * 2
    assert "a folder cannot keep its name" in found[0].refused
    assert "not UTF-8" in found[1].refused
    for identity, settled in (("e1", True), ("e2", False)):
        known = iter([verdict("../a.png", REJECTED, source_digest="")])
        (again,) = plan([stored("../a.png", identity)], known, Selection(), terms)
        assert (again.settled, again.todo) == (settled, False)


def test_a_limit_is_of_some():
    with pytest.raises(ValueError, match="limit is a number of items, at least 1"):
        Selection(limit=-1)
