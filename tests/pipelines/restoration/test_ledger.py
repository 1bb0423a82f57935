"""What a run tells of how far it is."""

import time
from collections import Counter

import pytest

from pipelines.media import NO_PIECE
from pipelines.restoration import ledger
from pipelines.restoration.ledger import Accounts, Ledger, Summary
from pipelines.restoration.manifest import REJECTED, RESTORED, Manifest
from pipelines.services.faults import TooManyLostError


def part(key, number, frames, **others):
    row = {**NO_PIECE, **ledger._NOTHING, "key": key, "kind": "clip", "part": number, "frames": frames}
    return {**row, "last": False, "error": "", "verdict": RESTORED, "panel_png": b"", **others}


def test_a_long_clip_is_seen_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 0.1)
    accounts = Accounts(str(tmp_path), "", "", panels=0, most_lost=0.5)
    book = Ledger(accounts, Manifest(str(tmp_path)), Summary(), lambda *_: None)
    book.begin([{"key": key, "uri": key, "identity": "", "known": None, "size": 1} for key in "ab"])
    for number in range(3):
        book.take(part("a", number, 24))
    book.take(part("b", 0, 10))
    time.sleep(0.1)
    book.take(part("b", 1, 10))
    told = capsys.readouterr().err
    assert told.startswith("0/2 items: 0 restored")
    assert "92 frames of 2 unfinished" in told
    assert " 0.00 frames/s" not in told


def test_too_many_lost_are_told_once_and_what_is_in_hand_is_still_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 0.0)
    accounts = Accounts(str(tmp_path), "", "", panels=0, most_lost=0.5)
    book = Ledger(accounts, Manifest(str(tmp_path)), Summary(), lambda *_: None)
    book.begin([{"key": str(n), "uri": "", "identity": "", "known": None, "size": 1} for n in range(110)])

    def lost(number):
        book.take(part(str(number), 0, 0, last=True, verdict=REJECTED, error="not a picture"))

    for number in range(99):
        lost(number)
    with pytest.raises(TooManyLostError, match=r"100% of 100 items .*: not a picture"):
        lost(99)
    for number in range(100, 110):
        lost(number)
    book.finish(given_up=0.0)
    assert book.summary.counts == {REJECTED: 110}


@pytest.mark.parametrize(("rejected", "already", "told"), [(2, 0, True), (2, 9, False), (120, 9, True)])
def test_a_few_that_came_to_many_done_before_are_no_reason_to_fail(rejected, already, told):
    summary = Summary(counts=Counter({REJECTED: rejected}), already=already)
    assert summary.too_many_lost(0.5) is told
