"""Where an alias points, and what a version says of its promotion."""

import pytest

from pipelines.services import models, tracking
from pipelines.services.models import AliasMovedError
from tests.pipelines.services.models.test_resolving import registered


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
