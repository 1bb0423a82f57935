"""What --model may be, and which version an alias points to."""

import pytest

from pipelines.services import models, tracking
from pipelines.services.models import AliasMovedError, ModelError
from spair_core import weights


def registered(name, data, count=1):
    with tracking.run("models", name) as run:
        for _ in range(count):
            tracking.register_model(name, data, weights.read_card(data), run=run)


@pytest.mark.parametrize("name", ["rain", "it's", "both ' and \"", "a@b", "50% of it", "ä b"])
def test_a_version_is_found_whatever_the_name(mlflow_store, tiny_weights, name):
    registered(name, tiny_weights, 2)
    tracking.client().set_registered_model_alias(name, "champion", "1")
    asked = {
        f"models:/{name}/1": 1,
        f"models:/{name}/2": 2,
        f"models:/{name}/latest": 2,
        f"models:/{name}/Latest": 2,
        f"models:/{name}@champion": 1,
    }
    if "@" not in name:
        asked[f"models:/{name}"] = 2
    assert {spec: models.registered_version(spec) for spec in asked} == {
        spec: (name, version) for spec, version in asked.items()
    }
    resolved = models.resolve(f"models:/{name}@champion")
    assert resolved.data == tiny_weights
    assert resolved.uri == f"models:/{name}/1"


def test_what_is_not_there_is_told_with_what_is(mlflow_store, tiny_weights):
    registered("rain", tiny_weights, 2)
    tracking.client().set_registered_model_alias("rain", "champion", "1")
    for spec, words in (
        ("models:/rian@champion", "there are: rain"),
        ("models:/", "there are: rain"),
        ("models:/rain@winner", r"no such alias; its newest version is 2, its aliases: @champion \(1\)"),
        ("models:/rain/9", "no such version; its newest version is 2"),
        ("models:/rain/Production", "no such version"),
        ("models:/rain/²", "no such version"),
        ("nothing.safetensors", "neither a file"),
    ):
        with pytest.raises(ModelError, match=words):
            models.resolve(spec)


def test_an_alias_moves_only_from_where_it_was_seen(mlflow_store, tiny_weights):
    registered("rain", tiny_weights, 3)
    assert models.aliased("rain", "champion") is None
    models.move_alias("rain", "champion", 1, expected=None, versions=[1])
    with pytest.raises(AliasMovedError, match="points to version 1 now, not to no version"):
        models.move_alias("rain", "champion", 2, expected=None, versions=[2])
    with pytest.raises(AliasMovedError, match="points to version 1 now, not to version 3"):
        models.move_alias("rain", "champion", 2, expected=3, versions=[3, 2])
    assert (models.aliased("rain", "champion"), models.history("rain", "champion")) == (1, [1])
    models.move_alias("rain", "champion", 2, expected=1, versions=[1, 2])
    assert (models.aliased("rain", "champion"), models.history("rain", "champion")) == (2, [1, 2])


def test_a_record_keeps_what_the_description_said(mlflow_store, tiny_weights):
    registered("rain", tiny_weights)
    store = tracking.client()
    store.update_model_version("rain", "1", "Trained in May.")
    models.record("rain", 1, {"promotion.decision": "refused"}, "first")
    models.record("rain", 1, {"promotion.decision": "promoted"}, "second" * 2000)
    version = store.get_model_version("rain", "1")
    assert version.tags["promotion.decision"] == "promoted"
    assert version.description.startswith("Trained in May.\n\n**Promotion**\nsecond")
    assert "first" not in version.description
