"""What a picture costs: parameters, and multiply-accumulates a pixel as a function of density.

    python -m spair_core.cost

Counted on a real forward pass over a picture with seeded streaks of the wanted density: every
convolution, SC over the degraded cells of each level, SNL over the pairs it scores. Elementwise
work is not counted, as is usual.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spair_core.network import NetworkConfig, Spair, full, light
from spair_core.network.blocks import Rise, SparseConvolution, SparseNonLocal

DENSITIES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Cost:
    """`parameters`; multiply-accumulates a pixel of Net_L, of Net_R's dense part and of SC and SNL."""

    parameters: int
    density: float
    localizer: float
    dense: float
    sparse: float

    @property
    def macs_per_pixel(self) -> float:
        """All of it."""
        return self.localizer + self.dense + self.sparse


def count(config: NetworkConfig, density: float, size: tuple[int, int] = (256, 256), seed: int = 0) -> Cost:
    """The cost of a picture of `size` (height, width) with a share `density` of degraded pixels."""
    if not 0 <= density <= 1:
        raise ValueError(f"density is a share between 0 and 1, not {density}")
    mask = streak_mask(size, density, np.random.default_rng(seed))
    return count_mask(config, torch.from_numpy(mask)[None, None])


@torch.inference_mode()
def count_mask(config: NetworkConfig, mask: Tensor) -> Cost:
    """The same for a given mask, bool N x 1 x H x W; counted on its device."""
    model = Spair(config).eval().to(mask.device)
    spent = {"localizer": 0, "dense": 0, "sparse": 0}

    def dense(part: str) -> Any:
        def hook(module: nn.Conv2d, _: Any, output: Tensor) -> None:
            spent[part] += module.weight.numel() * output.shape[0] * output.shape[2] * output.shape[3]

        return hook

    def merge(part: str) -> Any:
        def hook(module: Rise, _: Any, output: Tensor) -> None:
            spent[part] += module.macs(output.shape[0] * output.shape[2] * output.shape[3])

        return hook

    def sparse(module: SparseConvolution | SparseNonLocal, args: tuple[Any, ...], _: Any) -> None:
        spent["sparse"] += module.macs(args[-1])

    for name, module in model.named_modules():
        part = "localizer" if name.startswith("localizer") else "dense"
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(dense(part))
        elif isinstance(module, Rise):
            module.register_forward_hook(merge(part))
        elif isinstance(module, SparseConvolution | SparseNonLocal):
            module.register_forward_hook(sparse)
    model(torch.zeros(mask.shape[0], 3, *mask.shape[-2:], device=mask.device), mask)
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, float(mask.float().mean()), *(macs / mask.numel() for macs in spent.values()))


def streak_mask(size: tuple[int, int], density: float, rng: np.random.Generator) -> np.ndarray:
    """bool [H, W] with slanted streaks over a share `density` (to within one streak) of the pixels."""
    height, width = size
    mask = np.zeros(size, dtype=bool)
    if density >= 1:
        return ~mask
    wanted, slope = density * height * width, rng.uniform(-0.3, 0.3)
    while mask.sum() < wanted:
        length = int(rng.integers(8, 32))
        rows = rng.integers(-length, height) + np.arange(length)
        columns = (rng.integers(0, width) + slope * np.arange(length)).astype(int)
        for offset in range(int(rng.integers(1, 3))):
            keep = (rows >= 0) & (rows < height) & (columns + offset >= 0) & (columns + offset < width)
            mask[rows[keep], columns[keep] + offset] = True
    return mask


def table(presets: dict[str, NetworkConfig]) -> str:
    """One line a preset and density, as the README shows it."""
    lines = ["| preset | parameters | " + " | ".join(f"{d:.2f}" for d in DENSITIES) + " |"]
    lines.append("|---" * (len(DENSITIES) + 2) + "|")
    for name, config in presets.items():
        costs = [count(config, density) for density in DENSITIES]
        cells = " | ".join(f"{cost.macs_per_pixel / 1000:.1f}k" for cost in costs)
        lines.append(f"| {name} | {costs[0].parameters / 1e6:.2f}M | {cells} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of the presets."""
    told = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser("python -m spair_core.cost", None, __doc__, formatter_class=told).parse_args(
        arguments
    )
    print(table({"light": light(), "full": full()}))


if __name__ == "__main__":
    main()
