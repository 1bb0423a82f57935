"""How the networks learn: the objectives of the two phases, the learning rate and one training step.

Net_L first, by binary cross-entropy; then Net_R by L1 on the mask that Net_L predicts, with Net_L
frozen (the paper) or learning on beside it (`joint`, which serves better within a small budget).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spair_core.learning.samples import Columns
from spair_core.learning.settings import LearningConfig, Phase
from spair_core.network import Spair


@dataclass(frozen=True)
class Batch:
    """`degraded`, `clean` float N x 3 x H x W in [0, 1]; `mask` float N x 1 x H x W in {0, 1}.

    `references` N x 6 x H x W in [0, 1] where the network takes them; None for pictures.
    """

    degraded: Tensor
    clean: Tensor
    mask: Tensor
    references: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        references = None if self.references is None else self.references.to(device)
        return Batch(self.degraded.to(device), self.clean.to(device), self.mask.to(device), references)


def to_batch(arrays: Columns) -> Batch:
    """uint8 [N, H, W, 3] and bool [N, H, W] columns -> tensors of the network's range and layout."""

    def pictures(name: str) -> Tensor:
        return torch.tensor(arrays[name]).permute(0, 3, 1, 2).float() / 255

    mask = torch.tensor(arrays["mask"])[:, None].float()
    beside = pictures("references") if "references" in arrays else None
    return Batch(pictures("degraded"), pictures("clean"), mask, beside)


class Objective(nn.Module):
    """What a phase minimises, as a module, so that a data-parallel wrapper can stand around it."""

    def __init__(self, model: Spair, phase: Phase, joint_bce: float) -> None:
        super().__init__()
        model.localizer.requires_grad_(phase != "restore")
        model.restorer.requires_grad_(phase != "localize")
        # Net_R takes no part while Net_L learns alone, and must not be waited for.
        self.network: nn.Module = model.localizer if phase == "localize" else model
        self.stacked = model.stacked
        self.phase, self.joint_bce = phase, joint_bce

    def forward(
        self, degraded: Tensor, clean: Tensor, mask: Tensor, references: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Scalars: `loss` to minimise, and `bce` and `l1` where they take part."""
        if self.phase == "localize":
            located = self.network(self.stacked(degraded, references))
            bce = F.binary_cross_entropy_with_logits(located.logits.float(), mask)
            return {"loss": bce, "bce": bce}
        output = self.network(degraded, references=references)
        l1 = F.l1_loss(output.restored.float(), clean)
        bce = F.binary_cross_entropy_with_logits(output.logits.float(), mask)
        return {"loss": l1 + self.joint_bce * bce if self.phase == "joint" else l1, "l1": l1, "bce": bce}


class _Clock:
    """Seconds of the parts of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[f"seconds_{part}"], self.last = now - self.last, now


class Learner:
    """A model, its optimizer and its averaged weights through one phase.

    `wrap` may put a data-parallel wrapper around the objective.
    """

    def __init__(
        self,
        model: Spair,
        phase: Phase,
        config: LearningConfig,
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    ) -> None:
        self.model, self.config, self.phase = model, config, phase
        self.objective = wrap(Objective(model, phase, config.joint_bce))
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate, betas=config.betas)
        self.average = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
        )

    @property
    def best(self) -> Spair:
        """The model to validate and to save."""
        return cast(Spair, self.average.module) if self.average is not None else self.model

    def step(self, batch: Batch, rate: float, *, share: float = 1.0) -> dict[str, float]:
        """One update with learning rate `rate`: losses, the gradients' norm, and the seconds of each part.

        `share` weighs the batch where data-parallel workers, whose gradients are averaged, have batches of
        unequal sizes: this one's size over their mean. Raises FloatingPointError where the loss or a
        gradient is not finite; the weights are then untouched. It looks after the workers' gradients have
        met, so that all of them stop at the same step.
        """
        clock = _Clock()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        low = self.config.precision == "bfloat16"
        with torch.autocast(batch.clean.device.type, torch.bfloat16, enabled=low):
            losses = self.objective(batch.degraded, batch.clean, batch.mask, batch.references)
        clock.lap("forward")
        (losses["loss"] * share).backward()
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.config.clip or math.inf))
        # A GPU is waited for here alone: it is given the backward pass while it still does the forward one.
        values = {name: float(value.detach()) for name, value in losses.items()}
        clock.lap("backward")
        if not (math.isfinite(values["loss"]) and math.isfinite(norm)):
            told = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
            remedy = "lower the learning rate" + (" or use precision float32" if low else "")
            raise FloatingPointError(f"{told}, gradient norm {norm:.3g}: not finite; {remedy}")
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        clock.lap("optimizer")
        return values | {"gradient_norm": norm} | clock.seconds

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs beside its position in the data."""
        return {
            "phase": self.phase,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict` of the same phase and configuration."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None and state["average"] is not None:
            self.average.load_state_dict(state["average"])
