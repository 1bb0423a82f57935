"""Training on Ray Train: Net_L, then Net_R, from shards to a registered model.

Each worker streams its own part of an epoch's crops (`crop_stream`), rank 0 logs to MLflow, and a
checkpoint is reported after every epoch, so that a run killed anywhere resumes at the last epoch
and goes on as if it had not been broken.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray.train
import torch
from numpy.typing import NDArray
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model

from pipelines.data import shards
from pipelines.data.crop_stream import epoch_batches
from pipelines.data.shards import RowGroup, judged_example, list_row_groups, read_row_group
from pipelines.services import cluster, faults, models, storage, tracking
from pipelines.services.models import ResolvedModel
from spair_core import inference, metrics, network, weights
from spair_core.degradations.crops import Example
from spair_core.learning import Batch, CropConfig, Learner, LearningConfig, Phase
from spair_core.network import NetworkConfig, Spair
from spair_core.panels import before_after

CHECKPOINT = "learner.pt"
MASK_SCORES = ("mask_precision", "mask_recall", "density")
PANELS = 4
"""Validation pictures shown in MLflow."""


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    data: tuple[str, ...]
    """URIs of training shards, as jobs/ingest.py wrote them."""
    storage: str
    """URI under which checkpoints and the final model are kept, such as s3://models/runs."""
    name: str
    """The run's name. A run started again under its name goes on from its last checkpoint."""
    validation: tuple[str, ...] = ()
    """URIs of validation shards; without them nothing is validated."""
    task: str = "rain"
    """What the model takes away: rain, raindrop, shadow, blur, or rain+raindrop."""
    preset: Literal["light", "full", "paper"] = "light"
    """The network's size."""
    references: bool = False
    """Show both networks what neighbouring frames know: for footage, and as good for pictures."""
    squeeze: bool = False
    """Let Net_L weigh its channels by their statistics over the picture (squeeze-and-excitation)."""
    ablation: int | None = None
    """Train Net1 to Net5 of the paper's table 6 on the preset's widths; by default the preset itself."""
    localize_epochs: int = 90
    """Epochs of Net_L alone."""
    restore_epochs: int = 200
    """Epochs of Net_R."""
    joint: bool = False
    """Let Net_L learn on beside Net_R instead of freezing it."""
    epoch_steps: int | None = None
    """Steps of an epoch; by default one pass over the data."""
    batch_size: int = 8
    """Crops of a step, over all workers."""
    crops: CropConfig = field(default_factory=CropConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    validate_every: int = 5
    """Epochs between validations."""
    validation_limit: int = 32
    """Most validation pictures looked at."""
    workers: int = 1
    """Data-parallel workers, over as many nodes as they need."""
    min_workers: int | None = None
    """Go on with so few of them where nodes are lost, and take up more when they are back (elastic)."""
    gpu: bool = False
    """Give each worker a GPU."""
    cpus_per_worker: float = 1
    """CPUs kept for a worker; leave some in the cluster for reading the shards."""
    max_failures: int = 3
    """Worker failures after which the run gives up."""
    keep_checkpoints: int = 2
    """Checkpoints kept."""
    experiment: str = "spair-training"
    """MLflow experiment."""
    register_as: str | None = None
    """Registered model's name; by default spair-TASK."""
    start_from: str | None = None
    """Weights to start from instead of random ones: shipped weights, a file, a URI or models:/NAME@ALIAS.
    They may be of a network without references or squeezing, which then begin by changing nothing."""
    keep_localizers: tuple[int, ...] = ()
    """Numbers of epochs after which Net_L is kept, as STORAGE/NAME/localizer-N.safetensors (table S3)."""

    def __post_init__(self) -> None:
        fewest = self.workers if self.min_workers is None else self.min_workers
        if not 1 <= fewest <= self.workers <= self.batch_size:
            raise ValueError(
                f"min_workers ({self.min_workers}), workers ({self.workers}) and batch_size "
                f"({self.batch_size}) must ascend from 1: every worker needs a crop"
            )

    def network(self) -> NetworkConfig:
        """The configuration of the preset, or of its ablation. Raises ValueError for an unknown ablation."""
        preset = network.PRESETS[self.preset]()
        localizer = replace(preset.localizer, squeeze=self.squeeze)
        preset = replace(preset, localizer=localizer, references=self.references)
        return preset if self.ablation is None else network.ablation(self.ablation, preset)

    def start(self) -> ResolvedModel | None:
        """The model of `start_from`. Raises ModelError where it is not there or of another network."""
        if self.start_from is None:
            return None
        model = models.resolve(self.start_from)
        try:
            network.grown(model.build(), self.network())
        except ValueError as error:
            raise models.ModelError(
                f"{self.start_from} holds another network than preset {self.preset}: start from weights of "
                "that preset, or choose the preset (and --references, --squeeze) that they were trained with"
            ) from error
        return model

    def provenance(self, groups: list[RowGroup], measured: dict[str, float]) -> dict[str, str]:
        """Where the weights come from, for the model file's header."""
        facts: dict[str, Any] = {
            "preset": self.preset,
            "data": " ".join(sorted({storage.name_of(uri) for uri in self.data})),
            "pictures": sum(group.rows for group in groups),
            "epochs": f"{self.localize_epochs} + {self.restore_epochs}{' joint' if self.joint else ''}",
            "batch": f"{self.batch_size} crops of {self.crops.crop_size}",
            "learning": self.learning,
            "seed": self.crops.seed,
            **({"started from": self.start_from} if self.start_from else {}),
        }
        return {k: str(v) for k, v in facts.items()} | {k: f"{v:.4f}" for k, v in measured.items()}

    def anywhere(self) -> TrainConfig:
        """The same for workers, which read and write what lies at its locations from folders of their own."""

        def absolute(uri: str | None) -> str | None:
            return uri and storage.absolute(uri)

        crops = self.crops
        layers, masks, shakes = absolute(crops.layers), absolute(crops.shadow_masks), absolute(crops.shakes)
        crops = replace(crops, layers=layers, shadow_masks=masks, shakes=shakes)
        return replace(self, storage=storage.absolute(self.storage), crops=crops)

    @property
    def epochs(self) -> int:
        """Of both phases."""
        return self.localize_epochs + self.restore_epochs

    def phase(self, epoch: int) -> tuple[Phase, int, int]:
        """The phase of an epoch, the epoch's number within it and the phase's length."""
        if epoch < self.localize_epochs:
            return "localize", epoch, self.localize_epochs
        return ("joint" if self.joint else "restore"), epoch - self.localize_epochs, self.restore_epochs


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
    filesystem, path = storage.arrow_filesystem(config.storage)
    start = config.start()
    job = {"config": config.anywhere(), "groups": groups, "held_out": held_out, "start": start}
    cluster.connect(worker_output=True)
    with tracking.run(config.experiment, config.name) as run:
        run.log_params(config)
        trainer = TorchTrainer(
            _work,
            train_loop_config=job | {"run": run},
            scaling_config=ScalingConfig(
                num_workers=config.workers
                if config.min_workers is None
                else (config.min_workers, config.workers),
                use_gpu=config.gpu,
                resources_per_worker={"CPU": config.cpus_per_worker, **({"GPU": 1} if config.gpu else {})},
            ),
            run_config=RunConfig(
                name=config.name,
                storage_path=path,
                storage_filesystem=filesystem,
                failure_config=FailureConfig(max_failures=config.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=config.keep_checkpoints),
            ),
        )
        try:
            with faults.own_signals():
                result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise RuntimeError(f"run {config.name!r} failed: {error}") from error
        if result.return_value is not None:
            raise FloatingPointError(f"run {config.name!r} stopped: {result.return_value}")
        return _publish(config, result.checkpoint, result.metrics or {}, groups, run)


def _publish(
    config: TrainConfig,
    checkpoint: Checkpoint,
    metrics: dict[str, float],
    groups: list[RowGroup],
    run: tracking.Run,
) -> str:
    model = Spair(config.network())
    model.load_state_dict(_read_checkpoint(checkpoint)["best"])
    measured = {k: float(v) for k, v in metrics.items() if k.startswith("val_")}
    card = weights.ModelCard(
        config.network(), config.task, config.crops.mask_threshold, config.provenance(groups, measured)
    )
    # Half precision changes no pixel by more than rounding and halves what every actor loads.
    data = weights.save(model, card, torch.float16)
    location = storage.join(config.storage, config.name, "model.safetensors")
    storage.write_bytes(location, data)
    name = config.register_as or f"spair-{config.task}"
    digests = {uri: shards.digest(uri, "train") for uri in config.data}
    origin = tracking.Origin(config, digests, measured, step=max(config.epochs - 1, 0))
    version = tracking.register_model(name, data, card, run=run, origin=origin, tags={"weights": location})
    print(f"model: {location}\nregistered: models:/{name}/{version}", flush=True)
    return location


def _work(job: dict[str, Any]) -> str | None:
    """What each Ray Train worker does; says why where it stopped before the end."""
    config: TrainConfig = job["config"]
    worker = _Worker(config, job["groups"], job["held_out"], job["run"], job["start"])
    try:
        for epoch in range(worker.restore(), config.epochs):
            worker.epoch(epoch)
    except FloatingPointError as error:
        # Returned, not raised: all workers are here at the same step, and trying again would end here too.
        return str(error)
    return None


class _Worker:
    """One data-parallel worker: its learner, its part of the data, and (rank 0) the reports."""

    def __init__(
        self,
        config: TrainConfig,
        groups: list[RowGroup],
        held_out: list[RowGroup],
        run: tracking.Run,
        start: ResolvedModel | None,
    ) -> None:
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.config, self.groups, self.held_out, self.run = config, groups, held_out, run
        pictures = sum(group.rows for group in groups) * config.crops.crops_per_picture
        self.steps = config.epoch_steps or max(1, pictures // config.batch_size)
        self.device = get_device()
        torch.manual_seed(config.crops.seed)
        model = network.grown(start.build(), config.network()) if start else Spair(config.network())
        self.model = model.to(self.device)
        self.learner: Learner | None = None

    def restore(self) -> int:
        """Take up the last checkpoint, if there is one; the epoch to go on with."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return 0
        state = _read_checkpoint(checkpoint)
        epoch = int(state["epoch"])
        self._enter(self.config.phase(epoch)[0])
        assert self.learner is not None
        self.learner.load_state_dict(state["learner"])
        return epoch + 1

    def _enter(self, phase: Phase) -> Learner:
        if self.learner is None or self.learner.phase != phase:
            if self.learner is not None:
                # The next phase starts from the averaged weights, which are the better ones.
                self.model.load_state_dict(self.learner.best.state_dict())
            self.learner = Learner(self.model, phase, self.config.learning, self._parallel)
        return self.learner

    def _parallel(self, module: torch.nn.Module) -> torch.nn.Module:
        # A crop without degraded pixels leaves SC and SNL unused, which must not be waited for.
        return prepare_model(module, parallel_strategy_kwargs={"find_unused_parameters": True})

    def epoch(self, epoch: int) -> None:
        """One epoch: steps, perhaps a validation, and the report with its checkpoint."""
        phase, number, length = self.config.phase(epoch)
        learner = self._enter(phase)
        totals: dict[str, float] = defaultdict(float)
        started = waited = time.perf_counter()
        for step, batch in enumerate(self._batches(epoch)):
            rate = self.config.learning.rate(number + step / self.steps, length)
            totals["seconds_data"] += time.perf_counter() - waited
            for name, value in self._step(learner, batch, rate, f"epoch {epoch}, step {step}").items():
                totals[name] += value
            waited = time.perf_counter()
        logged: dict[str, float] = {"epoch": epoch, "learning_rate": rate}
        logged |= {f"train_{name}": value / self.steps for name, value in totals.items()}
        logged["steps_per_second"] = self.steps / (time.perf_counter() - started)
        if self._validates(epoch):
            logged |= self._validate(learner, epoch)
        self._report(epoch, learner, logged)

    def _step(self, learner: Learner, batch: Batch, rate: float, place: str) -> dict[str, float]:
        share = len(batch.clean) * self.world / self.config.batch_size
        try:
            return learner.step(batch.to(self.device), rate, share=share)
        except FloatingPointError as error:
            raise FloatingPointError(f"{place}: {error}") from error

    def _validates(self, epoch: int) -> bool:
        due = (epoch + 1) % self.config.validate_every == 0 or epoch + 1 == self.config.epochs
        return due and bool(self.held_out) and self.rank == 0

    def _batches(self, epoch: int) -> Iterator[Batch]:
        return epoch_batches(
            self.groups,
            self.config.crops,
            epoch,
            batch_size=self.config.batch_size,
            steps=self.steps,
            rank=self.rank,
            world=self.world,
            references=self.config.references,
        )

    def _report(self, epoch: int, learner: Learner, logged: dict[str, float]) -> None:
        if self.rank:
            ray.train.report(logged)
            return
        self.run.log_metrics(logged, step=epoch)
        if epoch + 1 in self.config.keep_localizers:
            self._keep(epoch + 1, learner.best)
        # Not by print, which Ray Train's workers show twice.
        sys.stdout.write(" ".join(f"{k} {v:.5g}" for k, v in logged.items()) + "\n")
        sys.stdout.flush()
        with tempfile.TemporaryDirectory() as folder:
            state = {"epoch": epoch, "learner": learner.state_dict(), "best": learner.best.state_dict()}
            torch.save(state, Path(folder) / CHECKPOINT)
            ray.train.report(logged, checkpoint=Checkpoint.from_directory(folder))

    def _keep(self, epochs: int, model: Spair) -> None:
        crops = self.config.crops
        card = weights.ModelCard(
            self.config.network(), self.config.task, crops.mask_threshold, {"epochs": f"{epochs} + 0"}
        )
        location = storage.join(self.config.storage, self.config.name, f"localizer-{epochs}.safetensors")
        storage.write_bytes(location, weights.save(model, card, torch.float16))

    def _validate(self, learner: Learner, epoch: int) -> dict[str, float]:
        """Means over the validation pictures; before Net_R has learnt, only those of the mask."""
        model = learner.best.eval()
        scores: list[dict[str, float]] = []
        rows = (row for group in self.held_out for row in read_row_group(group))
        for number, row in enumerate(islice(rows, self.config.validation_limit)):
            example, degraded = judged_example(row, self.config.crops.mask_threshold)
            result = inference.restore_window(model, example.shown)
            scores.append(_scores(example, degraded, result))
            if number < PANELS:
                panel = before_after(degraded, result.pixels[0], result.mask[0], example.clean)
                self.run.log_panel(f"epoch{epoch:04d}-{row['key'].replace('/', '_')}", panel)
        model.train()
        names = MASK_SCORES if learner.phase == "localize" else scores[0].keys()
        return {f"val_{name}": float(np.mean([score[name] for score in scores])) for name in names}


def _scores(example: Example, degraded: NDArray[np.uint8], result: inference.Restored) -> dict[str, float]:
    before = metrics.psnr_y(degraded, example.clean)
    after = metrics.psnr_y(result.pixels[0], example.clean)
    true = example.mask if example.mask is not None else np.zeros_like(result.mask[0])
    precision, recall = metrics.mask_scores(result.mask[0], true)
    # Equal pictures have an infinite PSNR, which no mean survives.
    before, after = min(before, 100.0), min(after, 100.0)
    return {
        "psnr_y": after,
        "gain_y": after - before,
        "mask_precision": precision,
        "mask_recall": recall,
        "density": float(result.mask.mean()),
    }


def _read_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    with checkpoint.as_directory() as folder:
        state: dict[str, Any] = torch.load(Path(folder) / CHECKPOINT, map_location="cpu", weights_only=True)
    return state
