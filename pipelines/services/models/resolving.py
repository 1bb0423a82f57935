"""What `--model` may be: a file, a URI, a registered model, or the name of shipped weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.services import storage, tracking
from spair_core import memory, weights
from spair_core.inference import Chosen, type_of
from spair_core.weights import ModelCard, WeightsError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

    from spair_core.network import Spair

REGISTRY = "models:/"
WEIGHTS_FILE = "model.safetensors"
"""Of a registered version, among its artifacts."""
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


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


def load_here(data: bytes, precision: Chosen = "float32") -> Spair:
    """The network of a model file in evaluation mode, on the GPU of this Ray worker where it has one.

    Without one, the worker keeps the memory that it frees. Raises WeightsError.
    """
    import ray  # takes a third of a second, for which what restores without a cluster need not wait
    import torch

    from spair_core.network import lowered

    model = lowered(weights.load(data)[0], type_of(precision))
    if torch.cuda.is_available() and ray.get_gpu_ids():
        return model.to("cuda")
    memory.keep_freed()
    return model


def resolve(spec: str) -> ResolvedModel:
    """Read the model that `spec` names, and make sure that it loads.

    Raises ModelError, which lists what there is; StorageError or TrackingError where it cannot be read.
    """
    return _looked_at(spec, weights.load)


def found(spec: str) -> ResolvedModel:
    """The same for who does not need torch yet: that the tensors are the network's is not looked at."""
    return _looked_at(spec, weights.check)


def _looked_at(spec: str, look: Callable[[bytes], Any]) -> ResolvedModel:
    uri, data = _read(spec)
    try:
        look(data)
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
    from mlflow.artifacts import download_artifacts

    name, version = registered_version(spec)
    with tempfile.TemporaryDirectory() as folder, tracking.explained():
        location = tracking.client().get_model_version_download_uri(name, str(version))
        path = download_artifacts(
            artifact_uri=f"{location}/artifacts/{WEIGHTS_FILE}",
            dst_path=folder,
            tracking_uri=tracking.store_uri(),
        )
        return version_uri(name, version), Path(path).read_bytes()


def version_uri(name: str, version: int) -> str:
    """models:/NAME/VERSION."""
    return f"{REGISTRY}{name}/{version}"


def registered_version(spec: str) -> tuple[str, int]:
    """Name and version of models:/NAME@ALIAS, models:/NAME/VERSION, or models:/NAME[/latest] (its newest).

    Raises ModelError, which says what there is.
    """
    rest = spec.removeprefix(REGISTRY)
    name, slash, number = rest.rpartition("/") if "/" in rest else (rest, "", "")
    name, at, alias = name.rpartition("@") if "@" in name and not slash else (name, "", "")
    with tracking.explained():
        found = registered_model(spec, name)
        newest = max((int(version.version) for version in found.latest_versions), default=0)
        if at:
            chosen = found.aliases.get(alias)
        elif not slash or number.lower() == "latest":
            chosen = newest or None
        else:
            chosen = number if number.isdecimal() and _has_version(name, number) else None
    if chosen is None:
        aliases = ", ".join(f"@{a} ({v})" for a, v in sorted(found.aliases.items())) or "none"
        raise ModelError(
            f"{spec}: {name} has no such {'alias' if at else 'version'}; "
            f"its newest version is {newest or 'none'}, its aliases: {aliases}"
        )
    return name, int(chosen)


def registered_model(spec: str, name: str) -> RegisteredModel:
    """The one of this name, which `spec` asks for. Raises ModelError, which lists those that there are."""
    from mlflow.exceptions import MlflowException

    store = tracking.client()
    try:
        return store.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        names = ", ".join(model.name for model in store.search_registered_models()) or "none"
        raise ModelError(
            f"{spec}: no model {name!r} is registered at {tracking.store_uri()}; there are: {names}"
        ) from error


def _has_version(name: str, number: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        tracking.client().get_model_version(name, number)
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        return False
    return True
