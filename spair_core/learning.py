"""How the networks learn: the objectives of the two phases, the learning rate and one training step.

Net_L first, by binary cross-entropy; then Net_R by L1 on the mask that Net_L predicts, with Net_L
frozen (the paper) or learning on beside it (`joint`, which serves better within a small budget).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spair_core.network import Spair

Phase = Literal["localize", "restore", "joint"]


@dataclass(frozen=True)
class LearningConfig:
    """Adam and its schedule. The defaults are the paper's (section 4.1)."""

    learning_rate: float = 2e-4
    """Adam's initial learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's averaging coefficients."""
    schedule: Literal["halving", "tail"] = "halving"
    """`halving`: halved every `halve_every` epochs; `tail`: constant, then linear to zero at the end."""
    halve_every: int = 50
    """Epochs between two halvings."""
    tail_share: float = 0.4
    """Share of the epochs over which `tail` decays."""
    clip: float = 1.0
    """Norm to which gradients are clipped; 0 for no clipping."""
    ema: float = 0.0
    """Decay of the averaged weights that are validated and saved; 0 for no averaging."""
    joint_bce: float = 0.1
    """Weight of Net_L's loss in the joint phase."""

    def rate(self, epoch: float, epochs: int) -> float:
        """The learning rate at a (fractional) epoch of a phase of `epochs`."""
        if self.schedule == "halving":
            return self.learning_rate * 0.5 ** (int(epoch) // self.halve_every)
        left = (epochs - epoch) / max(epochs * self.tail_share, 1e-9)
        return self.learning_rate * min(1.0, max(left, 0.0))


@dataclass(frozen=True)
class Batch:
    """`degraded`, `clean` float N x 3 x H x W in [0, 1]; `mask` float N x 1 x H x W in {0, 1}."""

    degraded: Tensor
    clean: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(self.degraded.to(device), self.clean.to(device), self.mask.to(device))


class Objective(nn.Module):
    """What a phase minimises, as a module, so that a data-parallel wrapper can stand around it."""

    def __init__(self, model: Spair, phase: Phase, joint_bce: float) -> None:
        super().__init__()
        model.localizer.requires_grad_(phase != "restore")
        model.restorer.requires_grad_(phase != "localize")
        # Net_R takes no part while Net_L learns alone, and must not be waited for.
        self.network: nn.Module = model.localizer if phase == "localize" else model
        self.phase, self.joint_bce = phase, joint_bce

    def forward(self, degraded: Tensor, clean: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Scalars: `loss` to minimise, and `bce` and `l1` where they take part."""
        if self.phase == "localize":
            bce = F.binary_cross_entropy_with_logits(self.network(degraded).logits, mask)
            return {"loss": bce, "bce": bce}
        output = self.network(degraded)
        l1 = F.l1_loss(output.restored, clean)
        bce = F.binary_cross_entropy_with_logits(output.logits, mask)
        return {"loss": l1 + self.joint_bce * bce if self.phase == "joint" else l1, "l1": l1, "bce": bce}


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

    def step(self, batch: Batch, rate: float) -> dict[str, float]:
        """One update with learning rate `rate`; the losses of the batch and the gradients' norm.

        Raises FloatingPointError where the loss is not finite; the weights are then untouched.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.objective(batch.degraded, batch.clean, batch.mask)
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not torch.isfinite(losses["loss"].detach()):
            raise FloatingPointError(f"the loss is not finite ({values}); lower the learning rate")
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip or float("inf"))
        if not torch.isfinite(norm):
            raise FloatingPointError(f"a gradient is not finite ({values}); lower the learning rate")
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return values | {"gradient_norm": float(norm)}

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
