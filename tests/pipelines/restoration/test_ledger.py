"""What a run tells of how far it is."""

import time

from pipelines.media import NO_PIECE
from pipelines.restoration import ledger
from pipelines.restoration.ledger import Accounts, Ledger, Summary
from pipelines.restoration.manifest import RESTORED, Manifest


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
