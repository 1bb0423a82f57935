"""What `--model` may be: a file, a URI, a registered model, or the name of shipped weights."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlflow.artifacts import download_artifacts

from pipelines import storage, tracking
from spair_core import weights
from spair_core.network import Spair
from spair_core.weights import ModelCard, WeightsError

REGISTRY = "models:/"


class ModelError(ValueError):
    """No model is there under this name; the message says what there is."""


@dataclass(frozen=True)
class ResolvedModel:
    """A model file in memory: `spec` as it was asked for, `uri` what that is, and its bytes."""

    spec: str
    uri: str
    data: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return weights.digest(self.data)

    @property
    def card(self) -> ModelCard:
        """What the file says of itself."""
        return weights.read_card(self.data)

    def build(self) -> Spair:
        """The network, on the CPU and in evaluation mode."""
        return weights.load(self.data)[0]


def resolve(spec: str) -> ResolvedModel:
    """Read the model that `spec` names, and make sure that it loads.

    Raises ModelError, which lists what there is; StorageError or TrackingError where it cannot be read.
    """
    uri, data = _read(spec)
    try:
        weights.load(data)
    except WeightsError as error:
        raise ModelError(f"{spec}: {error}") from error
    return ResolvedModel(spec, uri, data)


def _read(spec: str) -> tuple[str, bytes]:
    if spec.startswith(REGISTRY):
        return _registered(spec)
    if spec in weights.shipped_names():
        return f"spair:{spec}", weights.shipped(spec)
    if "://" in spec or Path(spec).is_file():
        return spec, storage.read_bytes(spec)
    names = ", ".join(weights.shipped_names()) or "none"
    raise ModelError(
        f"no model {spec!r}: it is neither a file nor shipped weights ({names}); "
        "a URI such as s3://bucket/model.safetensors or models:/spair-rain@champion would do as well"
    )


def _registered(spec: str) -> tuple[str, bytes]:
    name, version = registered_version(spec)
    uri = f"{REGISTRY}{name}/{version}"
    with tempfile.TemporaryDirectory() as folder, tracking.explained():
        path = download_artifacts(
            artifact_uri=f"{uri}/artifacts/{tracking.WEIGHTS_FILE}",
            dst_path=folder,
            tracking_uri=tracking.store_uri(),
        )
        return uri, Path(path).read_bytes()


def registered_version(spec: str) -> tuple[str, int]:
    """Name and version of models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME (its newest).

    Raises ModelError, which lists the model's versions and aliases.
    """
    with tracking.explained():
        store = tracking.client()
        rest = spec.removeprefix(REGISTRY)
        name, _, alias = rest.partition("@")
        name, _, number = name.partition("/")
        found = store.search_registered_models(f"name = '{name}'") if name else []
        if not found:
            names = ", ".join(model.name for model in store.search_registered_models()) or "none"
            raise ModelError(
                f"{spec}: no model {name!r} is registered at {tracking.store_uri()}; there are: {names}"
            )
        versions = sorted(int(v.version) for v in store.search_model_versions(f"name = '{name}'"))
        aliases = dict(store.get_registered_model(name).aliases)
    there = f"versions {versions}, aliases {', '.join(f'@{a}' for a in sorted(aliases)) or 'none'}"
    if alias:
        if alias not in aliases:
            raise ModelError(f"{spec}: {name} has no alias @{alias}; it has {there}")
        return name, int(aliases[alias])
    chosen = int(number) if number.isdigit() else (versions[-1] if versions and not number else -1)
    if chosen not in versions:
        raise ModelError(f"{spec}: {name} has no such version; it has {there}")
    return name, chosen


def champion(name: str, alias: str) -> int | None:
    """The version that an alias of a registered model points to, or None where there is none."""
    try:
        return registered_version(f"{REGISTRY}{name}@{alias}")[1]
    except ModelError:
        return None


def record(name: str, version: int, tags: dict[str, str]) -> None:
    """Write tags on a version. Raises TrackingError."""
    with tracking.explained():
        for key, value in tags.items():
            tracking.client().set_model_version_tag(name, str(version), key, value)


def move_alias(name: str, alias: str, version: int) -> None:
    """Point an alias to a version. Raises TrackingError."""
    with tracking.explained():
        tracking.client().set_registered_model_alias(name, alias, str(version))
