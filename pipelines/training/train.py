"""Training on Ray Train: Net_L, then Net_R, from shards to a registered model.

Each worker streams its own part of an epoch's crops (`crop_stream`), rank 0 logs to MLflow, and a
checkpoint is reported after every epoch, so that a run killed anywhere resumes at the last epoch
and goes on as if it had not been broken.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import ray.train
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig

from pipelines.data import crop_stream, shards
from pipelines.data.shards import RowGroup, list_row_groups
from pipelines.services import cluster, faults, locations, models, storage, tracking
from pipelines.services.models import ResolvedModel
from pipelines.training.settings import TrainConfig
from spair_core import weights
from spair_core.network import NetworkConfig

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

BEGUN = "begun.json"
"""The task and network of a run, in its folder."""


def train(config: TrainConfig) -> str:
    """Train, and register the model; gives the model file's location.

    A run of the same `storage` and `name` that was broken off is gone on with. Raises StorageError
    and TrackingError before anything starts where a location or MLflow cannot be used, ModelError where
    `start_from` does not fit, ValueError for a configuration that does not fit, RuntimeError where the
    workers fail for good, FloatingPointError where a loss stops being a number (the last checkpoint stays).
    """
    cluster.check_answers()
    tracking.check()
    storage.check_writable(config.storage)
    groups = list_row_groups(config.data, "train")
    held_out = list_row_groups(config.validation, "val") if config.validation else []
    crop_stream.check_material(config.crops)
    filesystem, path = locations.arrow_filesystem(config.storage)
    start = config.start()
    trained = _begin(config, start)
    job = {
        "config": config.anywhere(),
        "groups": groups,
        "held_out": held_out,
        "network": trained,
        "start": start,
    }
    cluster.connect(worker_output=True)
    if config.gpu:
        cluster.check_gpus(float(config.fewest), "--no-gpu")
    with tracking.run(config.experiment, config.name) as run:
        run.log_params(config)
        kept = RunConfig(
            name=config.name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=config.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=config.keep_checkpoints),
        )
        trainer = _trainer(config, job | {"run": run}, kept)
        try:
            with faults.own_signals():
                result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise RuntimeError(f"run {config.name!r} failed: {error}") from error
        if result.return_value is not None:
            raise FloatingPointError(f"run {config.name!r} stopped: {result.return_value}")
        return _publish(config, trained, result.checkpoint, result.metrics or {}, groups, run)


def _begin(config: TrainConfig, start: ResolvedModel | None) -> NetworkConfig:
    """The network that a run trains, kept beside its checkpoints, which fit no other when it is gone on with.

    Where it goes on without what it started from, the thresholds that it began with hold.
    """
    location = locations.join(config.storage, config.name, BEGUN)
    trained = config.trained(start)
    if not storage.exists(location):
        begun = {"task": config.task, "network": asdict(trained)}
        storage.write_bytes(location, json.dumps(begun, indent=1).encode())
        return trained
    kept = _begun(config, storage.read_bytes(location))
    if kept is None:
        raise ValueError(
            f"run {config.name!r} in {config.storage} was begun with another network or task: give the "
            "--task, --preset, --references, --squeeze and --ablation that it began with, or another --name"
        )
    return trained if start else kept


def _begun(config: TrainConfig, data: bytes) -> NetworkConfig | None:
    """The network that a run began with, if such a run could have. What is compared is the network that it
    says, not its letters: an earlier version knew fewer fields."""
    try:
        begun = json.loads(data)
        task, kept = begun["task"], NetworkConfig.from_dict(begun["network"])
    except (ValueError, KeyError, TypeError):
        return None
    asked = config.network()
    return kept if (task, kept.at_thresholds_of(asked)) == (config.task, asked) else None


def _trainer(config: TrainConfig, job: dict[str, Any], kept: RunConfig) -> TorchTrainer:
    from ray.train.torch import TorchTrainer  # with torch: what is wrong before need not wait for it

    from pipelines.training.worker import work

    workers = config.workers if config.min_workers is None else (config.min_workers, config.workers)
    resources = {"CPU": config.cpus_per_worker, **({"GPU": 1} if config.gpu else {})}
    scaling = ScalingConfig(num_workers=workers, use_gpu=config.gpu, resources_per_worker=resources)
    return TorchTrainer(work, train_loop_config=job, scaling_config=scaling, run_config=kept)


def _publish(
    config: TrainConfig,
    trained: NetworkConfig,
    checkpoint: Checkpoint,
    metrics: dict[str, float],
    groups: list[RowGroup],
    run: tracking.Run,
) -> str:
    import torch

    from pipelines.training.worker import read_checkpoint
    from spair_core.network import Spair

    model = Spair(trained)
    model.load_state_dict(read_checkpoint(checkpoint)["best"])
    measured = {k: float(v) for k, v in metrics.items() if k.startswith("val_")}
    card = weights.ModelCard(
        trained, config.task, config.crops.mask_threshold, config.provenance(groups, measured)
    )
    # Half precision changes no pixel by more than rounding and halves what every actor loads.
    data = weights.save(model, card, torch.float16)
    location = locations.join(config.storage, config.name, "model.safetensors")
    storage.write_bytes(location, data)
    name = config.register_as or f"spair-{config.task}"
    digests = {uri: shards.digest(uri, "train") for uri in config.data}
    origin = models.Origin(config, digests, measured, step=max(config.epochs - 1, 0))
    version = models.register(name, data, card, run=run, origin=origin, tags={"weights": location})
    print(f"model: {location}\nregistered: models:/{name}/{version}", flush=True)
    return location
