"""Models by any of their names: files, shipped weights and MLflow's registry; versions and aliases there."""

from pipelines.services.models.aliases import AliasMovedError, aliased, history, move_alias, record
from pipelines.services.models.registration import Origin, register
from pipelines.services.models.resolving import (
    REGISTRY,
    WEIGHTS_FILE,
    ModelError,
    ResolvedModel,
    found,
    load_here,
    registered_version,
    resolve,
    version_uri,
)

__all__ = [
    "REGISTRY",
    "WEIGHTS_FILE",
    "AliasMovedError",
    "ModelError",
    "Origin",
    "ResolvedModel",
    "aliased",
    "found",
    "history",
    "load_here",
    "move_alias",
    "record",
    "register",
    "registered_version",
    "resolve",
    "version_uri",
]
