"""A model file -> a version of a registered model, which MLflow loads and serves anywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.services import tracking
from pipelines.services.models.resolving import WEIGHTS_FILE
from spair_core import weights

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

    from spair_core.weights import ModelCard

DATASET_NAME_LENGTH, DATASET_DIGEST_LENGTH = 500, 36
"""MLflow takes no longer ones; the full digests are in the version's tags and metadata."""
PROJECT = Path(__file__).resolve().parents[3]
MODEL_NEEDS = ("mlflow", "numpy", "pandas", "pillow", "safetensors", "torch")


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, as its version records it.

    `configuration` is a (nested) dataclass or mapping, `data` the digest of each data set by its location,
    `metrics` what was measured at `step` of the run.
    """

    configuration: Any = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    step: int = 0

    def plain(self) -> dict[str, Any]:
        """All of it as JSON would hold it."""
        return dict(json.loads(json.dumps(asdict(self), default=str)))


def register(
    name: str,
    data: bytes,
    card: ModelCard,
    *,
    run: tracking.Run,
    origin: Origin | None = None,
    tags: Mapping[str, str] | None = None,
) -> int:
    """Register a model file as a new version of `name`, and give its number. Raises TrackingError.

    The version loads as pyfunc (see `registered_model`) anywhere: it brings the project's code along,
    its weights as safetensors and, as metadata, its whole origin. Its tags are the given ones, the file's
    digest, the task, the data's digests, the metrics, and the code's revision where that is known; its
    description is its card. The run shows the model as its output and the data as its input; the metrics
    are the model's too.
    """
    from mlflow.exceptions import MlflowException

    origin = origin or Origin()
    revision = _revision()
    facts = {
        "digest": weights.digest(data),
        "task": card.task,
        **revision,
        **({"data": "\n".join(f"{uri} {mark}" for uri, mark in origin.data.items())} if origin.data else {}),
        **{f"metric.{key}": f"{value:.4f}" for key, value in origin.metrics.items()},
        **(tags or {}),
    }
    facts = {key: str(value)[: tracking.TAG_LENGTH] for key, value in facts.items()}
    metadata = {**revision, "card": json.loads(card.to_json()), "origin": origin.plain()}
    store = tracking.client()
    with tracking.explained(run.store), tempfile.TemporaryDirectory() as temporary:
        try:
            store.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        logged = _log_model(store, run, _saved(data, metadata, Path(temporary)), origin, facts)
        version = store.create_model_version(
            name,
            f"models:/{logged}",
            run.run_id,
            tags=facts,
            description=_described(card, origin),
            model_id=logged,
        )
    return int(version.version)


def _described(card: ModelCard, origin: Origin) -> str:
    """A model's card as MLflow shows it: Markdown."""
    told = {"takes away": card.task, "counts a pixel as degraded from": f"{card.mask_threshold:g}"}
    told |= card.provenance | {f"{name} at its end": f"{value:.4g}" for name, value in origin.metrics.items()}
    return "\n".join(f"- **{name}**: {value}" for name, value in told.items())


def _log_model(
    store: MlflowClient, run: tracking.Run, folder: Path, origin: Origin, facts: Mapping[str, str]
) -> str:
    """A saved model as the run's output; gives its id."""
    from mlflow.entities import LoggedModelOutput, Metric

    logged = store.create_logged_model(
        store.get_run(run.run_id).info.experiment_id,
        f"{facts['task']}-{facts['digest'][:12]}",
        source_run_id=run.run_id,
        params={
            k: str(v)[: tracking.PARAM_LENGTH]
            for k, v in tracking.flatten(origin.plain()["configuration"]).items()
        },
        tags=dict(facts),
    )
    identity = str(logged.model_id)
    store.log_model_artifacts(identity, str(folder))
    store.finalize_logged_model(identity, "READY")
    store.log_outputs(run.run_id, [LoggedModelOutput(identity, origin.step)])
    now = int(time.time() * 1000)
    metrics = [Metric(k, float(v), now, origin.step, model_id=identity) for k, v in origin.metrics.items()]
    store.log_batch(run.run_id, metrics=metrics)
    store.log_inputs(run.run_id, [_dataset(uri, mark) for uri, mark in origin.data.items()])
    return identity


def _dataset(uri: str, mark: str) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        uri[-DATASET_NAME_LENGTH:], mark[:DATASET_DIGEST_LENGTH], "shards", json.dumps({"uri": uri})
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _saved(data: bytes, metadata: dict[str, Any], folder: Path) -> Path:
    """The model as MLflow keeps it, below `folder`."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    file = folder / WEIGHTS_FILE
    file.write_bytes(data)
    for package in ("kernels", "spair_core"):
        ignored = shutil.ignore_patterns("__pycache__", "shipped")
        shutil.copytree(PROJECT / package, folder / package, ignore=ignored)
    with warnings.catch_warnings():
        # MLflow would like an example picture to be restored now; the signature says enough.
        warnings.simplefilter("ignore", UserWarning)
        mlflow.pyfunc.save_model(
            path=str(folder / "model"),
            python_model=str(Path(__file__).with_name("registered_model.py")),
            artifacts={"weights": str(file)},
            code_paths=[str(folder / "kernels"), str(folder / "spair_core")],
            signature=ModelSignature(
                # Without a name, so that a list of pictures does as well as a table with a column of them.
                Schema([ColSpec(DataType.binary)]),
                Schema([ColSpec(DataType.binary, "restored"), ColSpec(DataType.double, "degraded_share")]),
            ),
            metadata=metadata,
            pip_requirements=[f"{name}=={installed_version(name).partition('+')[0]}" for name in MODEL_NEEDS],
        )
    return folder / "model"


def _revision() -> dict[str, str]:
    git = ["git", f"--git-dir={PROJECT / '.git'}", f"--work-tree={PROJECT}"]
    command = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}  # not a checkout, or no git
    return {"revision": shown.stdout.strip()}
