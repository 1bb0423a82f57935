"""The page of a night, as jobs make it: by itself, and at the end of every restoration."""

from collections import Counter

import pytest

from jobs import nightly_derain, report, restore_bulk
from pipelines.reports import night
from pipelines.reports.night import ReportConfig
from pipelines.restoration.ledger import Summary
from pipelines.restoration.manifest import RESTORED, Manifest, Verdict
from pipelines.restoration.restore import RestoreConfig
from pipelines.services.faults import NothingThereError, TooManyLostError


@pytest.fixture
def restored(tmp_path, monkeypatch):
    """A night whose work is done by hand."""

    def restore(config):
        book = Manifest(config.destination)
        book.add(Verdict("a", "picture", RESTORED))
        book.commit()
        return Summary(Counter(restored=1))

    monkeypatch.setattr(restore_bulk, "restore", restore)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return str(tmp_path / "{night}")


def test_a_page_is_made_of_what_lies_there(tmp_path, capsys):
    book = Manifest(str(tmp_path))
    book.add(Verdict("a", "picture", RESTORED))
    book.commit()
    report.main(ReportConfig(str(tmp_path), str(tmp_path / "page.html")))
    assert capsys.readouterr().out == f"{tmp_path}/page.html\n"
    assert "1 of 1 items" in (tmp_path / "page.html").read_text()


@pytest.mark.long
def test_a_night_ends_with_its_page(restored, mlflow_store, tmp_path, capsys):
    config = nightly_derain.NightlyConfig("s3://a", restored, night="2026-11-20")
    assert nightly_derain.main(config) == 0
    page = tmp_path / "2026-11-20" / "_spair" / "report.html"
    assert f"report: {page}\n" in capsys.readouterr().out
    assert "<title>The morning after: 2026-11-20</title>" in page.read_text()


def test_an_error_in_the_page_does_not_fail_the_night(restored, monkeypatch, capsys):
    def broken(config):
        raise KeyError("two\nlines")

    monkeypatch.setattr(night, "report", broken)
    assert restore_bulk.main(RestoreConfig("s3://a", restored)) == 0
    assert capsys.readouterr().err == "no report was made: KeyError: 'two\\nlines'\n"


def test_a_night_that_was_stopped_for_its_losses_has_a_page_too(restored, mlflow_store, monkeypatch, capsys):
    work = restore_bulk.restore

    def stopped(config):
        work(config)
        raise TooManyLostError("most of them")

    monkeypatch.setattr(restore_bulk, "restore", stopped)
    with pytest.raises(TooManyLostError):
        restore_bulk.main(RestoreConfig("s3://a", restored))
    assert "report: " in capsys.readouterr().out


def test_a_selection_that_takes_nothing_is_told(restored, monkeypatch, capsys):
    monkeypatch.setattr(restore_bulk, "restore", lambda config: Summary())
    with pytest.raises(NothingThereError, match=r"s3://a: nothing of what is there was looked at.*--include"):
        restore_bulk.main(RestoreConfig("s3://a", restored))
    for seen in (Summary(already=1), Summary(pruned=1)):
        monkeypatch.setattr(restore_bulk, "restore", lambda config, seen=seen: seen)
        assert restore_bulk.main(RestoreConfig("s3://a", restored)) == 0


def test_a_dry_run_makes_none(restored, monkeypatch, capsys):
    monkeypatch.setattr(restore_bulk, "forecast", lambda config: "nothing")
    assert restore_bulk.main(RestoreConfig("s3://a", restored, dry_run=True)) == 0
    assert "report" not in capsys.readouterr().out
