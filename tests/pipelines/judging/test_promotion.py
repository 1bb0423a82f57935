"""Promotion: decided on named sets and on clean pictures, written down, and undone."""

import json
from pathlib import Path

import pytest

from jobs import promote as job
from pipelines.judging import clips, evaluation, promotion
from pipelines.judging.decision import Bars
from pipelines.judging.promotion import PromoteConfig
from pipelines.services import models, tracking
from spair_core import weights
from tests.pipelines.judging.test_decision import clip, left, result


def test_the_flags_name_one_thing_to_do():
    for wrong, words in (
        ({}, "candidate to promote, or a model"),
        ({"candidate": "models:/rain/1", "rollback": "models:/rain"}, "candidate to promote, or a model"),
        ({"candidate": "models:/rain/1"}, "--data"),
    ):
        with pytest.raises(ValueError, match=words):
            PromoteConfig(**wrong)


@pytest.fixture
def scores(mlflow_store, tiny_weights, monkeypatch):
    """Three versions of `rain`, and the PSNR that the judge will find for each."""
    card = weights.read_card(tiny_weights)
    with tracking.run("models", "three versions") as run:
        for _ in range(3):
            models.register("rain", tiny_weights, card, run=run)
    found = {f"models:/rain/{number}": 30.0 + number for number in (1, 2, 3)}
    monkeypatch.setattr(evaluation, "evaluate", lambda _, model: [result("a", found[model.uri])])
    return found


def promoted(candidate, **options):
    return job.main(PromoteConfig(candidate, ("anything",), **options))


def rolled_back(**options):
    return job.main(PromoteConfig(rollback="models:/rain", **options))


def champion():
    return models.aliased("rain", "champion")


@pytest.mark.long
def test_the_alias_moves_and_all_is_written_down(scores, capsys):
    assert promoted("models:/rain/2") == 0
    assert champion() == 2
    assert promoted("models:/rain/1") == 3
    assert champion() == 2
    assert "not promoted: -1.00 dB against the champion" in capsys.readouterr().out
    assert promoted("models:/rain/2") == 3
    assert "already" in capsys.readouterr().out

    store = tracking.client()
    refused = store.get_model_version("rain", "1")
    assert refused.tags["promotion.decision"] == "refused"
    assert refused.tags["promotion.against"] == "2"
    assert "PSNR-Y" in refused.description
    run = store.get_run(refused.tags["promotion.run"])
    assert run.data.params["bars.margin"] == "0.05"
    written = Path(store.download_artifacts(run.info.run_id, "decision.json"))
    kept = json.loads(written.read_text())
    assert (kept["candidate"][0]["psnr_y"], kept["champion"][0]["psnr_y"]) == (31.0, 32.0)
    table = Path(store.download_artifacts(run.info.run_id, "decision.txt")).read_text()
    assert "candidate models:/rain/1" in table
    assert "none were looked at" in table


def test_only_a_registered_version_can_be_promoted(mlflow_store):
    with pytest.raises(models.ModelError, match="only a registered version"):
        promoted("rain-light")
    with pytest.raises(models.ModelError, match="there are: none"):
        rolled_back()


@pytest.mark.long
def test_a_candidate_that_touches_clean_pictures_is_refused(scores, monkeypatch, capsys):
    def keep(*psnr):
        monkeypatch.setattr(promotion, "untouched", lambda *_, **__: [left(value) for value in psnr])

    keep(34)
    assert promoted("models:/rain/1", clean=("photos",)) == 3
    assert "not promoted: clean pictures keep 34.00 dB" in capsys.readouterr().out
    keep(45)
    assert promoted("models:/rain/1", clean=("photos",)) == 0
    keep(44, 45)
    assert promoted("models:/rain/2", clean=("photos",)) == 3
    assert promoted("models:/rain/2", clean=("photos",), bars=Bars(clean_tolerance=1.5)) == 0
    assert champion() == 2


@pytest.mark.long
def test_a_model_for_footage_is_judged_on_clips(scores, monkeypatch, capsys):
    seen = {1: clip("drive", 33.0), 2: clip("drive", 35.0, flicker=1.3), 3: clip("drive", 35.0)}
    asked = []

    def judged(config, model):
        asked.append(config)
        return [seen[int(model.uri.rpartition("/")[2])]]

    monkeypatch.setattr(clips, "judge_clips", judged)
    of = {"data": (), "footage": ("drives",)}
    assert job.main(PromoteConfig("models:/rain/1", **of)) == 0
    assert (asked[0].data, asked[0].layout, asked[0].footage) == (("drives",), "clip-pairs", True)
    assert job.main(PromoteConfig("models:/rain/2", **of)) == 3
    assert "not promoted: clips flicker 1.300 times as much" in capsys.readouterr().out
    assert job.main(PromoteConfig("models:/rain/3", **of)) == 0
    store = tracking.client()
    kept = store.get_model_version("rain", "2").tags["promotion.run"]
    written = json.loads(Path(store.download_artifacts(kept, "decision.json")).read_text())
    assert written["candidate's clips"][0]["flicker"] == 1.3


def test_what_is_judged_bad_on_pictures_is_not_saved_by_clips(scores, monkeypatch, capsys):
    monkeypatch.setattr(clips, "judge_clips", lambda *_: [clip("drive", 40.0)])
    assert promoted("models:/rain/2") == 0
    assert promoted("models:/rain/1", footage=("drives",)) == 3
    assert "not promoted: -1.00 dB against the champion" in capsys.readouterr().out


@pytest.mark.long
def test_rolling_back_goes_back_a_promotion_at_a_time(scores, capsys):
    assert rolled_back() == 3
    assert "nothing was promoted" in capsys.readouterr().out
    for number in (1, 2, 3):
        assert promoted(f"models:/rain/{number}") == 0
    assert rolled_back() == 0
    assert champion() == 2
    assert "version 2 again, as it was before version 3" in capsys.readouterr().out
    tags = tracking.client().get_model_version("rain", "3").tags
    assert tags["promotion.decision"] == "rolled back"
    assert promoted("models:/rain/3") == 0
    assert (rolled_back(), champion(), rolled_back(), champion()) == (0, 2, 0, 1)
    assert (rolled_back(), champion()) == (3, 1)
    assert "there is none to go back to" in capsys.readouterr().out


@pytest.mark.long
def test_an_alias_set_by_hand_is_not_rolled_back(scores, capsys):
    assert promoted("models:/rain/1") == 0
    tracking.client().set_registered_model_alias("rain", "champion", "2")
    assert rolled_back() == 3
    assert "by hand" in capsys.readouterr().out
    assert promoted("models:/rain/3") == 0
    assert (rolled_back(), champion()) == (0, 2)


@pytest.mark.long
def test_a_version_that_was_deleted_cannot_come_back(scores):
    assert promoted("models:/rain/1") == promoted("models:/rain/2") == 0
    tracking.client().delete_model_version("rain", "1")
    with pytest.raises(models.ModelError, match="no such version"):
        rolled_back()
    assert champion() == 2


@pytest.mark.long
def test_an_alias_that_moved_meanwhile_is_left_alone(scores, monkeypatch, capsys):
    assert promoted("models:/rain/1") == 0

    def meanwhile(_, model):
        tracking.client().set_registered_model_alias("rain", "champion", "2")
        return [result("a", scores[model.uri])]

    monkeypatch.setattr(evaluation, "evaluate", meanwhile)
    assert promoted("models:/rain/3") == 3
    assert champion() == 2
    assert "someone else has moved it meanwhile" in capsys.readouterr().out
    assert tracking.client().get_model_version("rain", "3").tags["promotion.decision"] == "refused"


@pytest.mark.long
def test_aliases_have_their_own_past(scores):
    assert promoted("models:/rain/1") == 0
    assert promoted("models:/rain/1", alias="canary") == promoted("models:/rain/2", alias="canary") == 0
    assert rolled_back() == 3
    assert rolled_back(alias="canary") == 0
    assert models.aliased("rain", "canary") == champion() == 1
