"""What --model may be, and which version an alias points to."""

import pytest

from pipelines.services import models, tracking
from pipelines.services.models import ModelError
from spair_core import weights


def registered(name, data, count=1):
    with tracking.run("models", name) as run:
        for _ in range(count):
            models.register(name, data, weights.read_card(data), run=run)


@pytest.mark.long
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
