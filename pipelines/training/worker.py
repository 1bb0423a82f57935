"""What each Ray Train worker does: epochs of steps on its part of the data, and (rank 0) their reports."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from numpy.typing import NDArray
from ray.train import Checkpoint
from ray.train.torch import get_device, prepare_model

from pipelines.data.crop_stream import epoch_batches
from pipelines.data.shards import RowGroup, judged_example, rows_in_turn
from pipelines.services import locations, storage, tracking
from pipelines.services.models import ResolvedModel
from pipelines.training.settings import TrainConfig
from spair_core import inference, metrics, network, weights
from spair_core.degradations.crops import Example
from spair_core.images import PictureError
from spair_core.learning import Batch, Learner, Phase
from spair_core.network import NetworkConfig, Spair
from spair_core.panels import before_after

CHECKPOINT = "learner.pt"
MASK_SCORES = ("mask_precision", "mask_recall", "density")
PANELS = 4
"""Validation pictures shown in MLflow."""


def work(job: dict[str, Any]) -> str | None:
    """All epochs that are still to be done; says why where it stopped before the end."""
    config: TrainConfig = job["config"]
    worker = _Worker(config, job["groups"], job["held_out"], job["run"], job["network"], job["start"])
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
        trained: NetworkConfig,
        start: ResolvedModel | None,
    ) -> None:
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.config, self.groups, self.held_out, self.run = config, groups, held_out, run
        pictures = sum(group.rows for group in groups) * config.crops.crops_per_picture
        self.steps = config.epoch_steps or max(1, pictures // config.batch_size)
        self.device = get_device()
        torch.manual_seed(config.crops.seed)
        model = network.grown(start.build(), trained) if start else Spair(trained)
        self.model = model.to(self.device)
        self.learner: Learner | None = None

    def restore(self) -> int:
        """Take up the last checkpoint, if there is one; the epoch to go on with."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return 0
        state = read_checkpoint(checkpoint)
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
            model.config, self.config.task, crops.mask_threshold, {"epochs": f"{epochs} + 0"}
        )
        location = locations.join(self.config.storage, self.config.name, f"localizer-{epochs}.safetensors")
        storage.write_bytes(location, weights.save(model, card, torch.float16))

    def _validate(self, learner: Learner, epoch: int) -> dict[str, float]:
        """Means over the validation pictures, if any can be read; before Net_R has learnt, only those of the
        mask."""
        model = learner.best.eval()
        scores: list[dict[str, float]] = []
        for name, example, degraded in islice(self._judged(), self.config.validation_limit):
            result = inference.restore_window(model, example.shown)
            scores.append(_scores(example, degraded, result))
            if len(scores) <= PANELS:
                panel = before_after(degraded, result.pixels[0], result.mask[0], example.clean)
                self.run.log_panel(f"epoch{epoch:04d}-{locations.as_file_name(name)}", panel)
        model.train()
        if not scores:
            return {}
        names = MASK_SCORES if learner.phase == "localize" else scores[0].keys()
        return {f"val_{name}": float(np.mean([score[name] for score in scores])) for name in names}

    def _judged(self) -> Iterator[tuple[str, Example, NDArray[np.uint8]]]:
        """The validation pictures that can be read, one of each set in turn: name, example, degraded."""
        for row in rows_in_turn(self.held_out):
            try:
                example, degraded = judged_example(row, self.config.crops.mask_threshold)
            except PictureError:
                continue  # as training passes them over
            yield f"{row['set']}/{row['key']}", example, degraded


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


def read_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """The state of an epoch's end: `epoch`, `learner`, and `best`, the weights to use."""
    with checkpoint.as_directory() as folder:
        state: dict[str, Any] = torch.load(Path(folder) / CHECKPOINT, map_location="cpu", weights_only=True)
    return state
