"""What SFM and SNL do inside Net_R: their statistics and attention, seen by hooks in one pass.

Shape letters: h x w cells of a level, C channels, n degraded cells, m clean cells. A level is named by
its divisor: 2, 4 and 8 for 1/2, 1/4 and 1/8 of the resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kernels import ActiveIndex
from spair_core.network import Spair
from spair_core.network.blocks import SFM_EPS, SFM_PAPER_EPS, FeatureModulator, SparseNonLocal, rows_of

DIRECTIONS = ("left", "right", "up", "down")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """mu and sigma (with its eps) of eq. 1, float [C]."""

    mean: Floats
    deviation: Floats


@dataclass(frozen=True)
class Modulation:
    """The statistics at one SFM (eq. 1): of the degraded cells before and after it, and of the clean ones.

    The clean cells pass through it unaltered. `stage` is Net_R's encoder or decoder.
    """

    stage: str
    level: int
    degraded_cells: int
    clean_cells: int
    before: Moments
    after: Moments
    clean: Moments

    def gaps(self, degraded: Moments) -> tuple[float, float]:
        """Means over channels of |mu - mu_clean| / sigma_clean and |sigma / sigma_clean - 1|."""
        mean = np.abs(degraded.mean - self.clean.mean) / self.clean.deviation
        return float(mean.mean()), float(np.abs(degraded.deviation / self.clean.deviation - 1).mean())


@dataclass(frozen=True)
class Gathering:
    """One step of SNL at one cell, by direction (DIRECTIONS): what it draws from where.

    `blend` [4] are the e_k as applied, `keys` [4] the clean cells of each direction, `focus` [4]
    1 / sum of o_q^2, the number of cells that the softmax in effect draws on; `weights` [h, w] are
    e_k(p) * o_q at the clean cells of the row and column and 0 elsewhere.
    """

    blend: Floats
    keys: NDArray[np.int64]
    focus: Floats
    weights: Floats


@dataclass(frozen=True)
class Attention:
    """SNL (eq. 3-5) of the chosen pixel at one level: its `cell` (y, x) there, and the two steps."""

    level: int
    cell: tuple[int, int]
    steps: tuple[Gathering, ...]


@dataclass
class Seen:
    """What the hooks saw in one pass through Net_R."""

    modulations: list[Modulation] = field(default_factory=list)
    attentions: list[Attention] = field(default_factory=list)


@contextmanager
def watched(model: Spair, pixel: tuple[int, int] | None) -> Iterator[Seen]:
    """While it lasts, every SFM and SNL of Net_R reports what it does."""
    seen, net = Seen(), model.restorer

    def modulates(stage: str, level: int, module: FeatureModulator, args: Any, output: Tensor) -> None:
        features, guide, index = args
        if index.active.numel() and index.clean.numel():
            fused = module.project(guide) + features
            seen.modulations.append(modulation(module, fused, output, index, stage, level))

    def attends(level: int, module: SparseNonLocal, args: Any, _: Tensor) -> None:
        rows, keys, index = args
        cell = None if pixel is None else (pixel[0] // level, pixel[1] // level)
        if cell is not None and index.mask[0, 0][cell]:
            seen.attentions.append(Attention(level, cell, attention(module, rows, keys, index, cell)))

    hooks: list[tuple[nn.Module, Callable[..., None]]] = []
    for stage, modulators in (("encoder", net.encoder_modulators), ("decoder", net.decoder_modulators)):
        hooks += [(sfm, partial(modulates, stage, 2**depth)) for depth, sfm in enumerate(modulators, 1)]
    for depth, block in enumerate(net.decoder):
        if isinstance(block.attend, SparseNonLocal):
            hooks.append((block.attend, partial(attends, 2**depth)))
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def modulation(
    module: FeatureModulator, fused: Tensor, output: Tensor, index: ActiveIndex, stage: str, level: int
) -> Modulation:
    """The statistics round one SFM of one picture: `fused` is F of eq. 1, 1 x C x h x w, as is `output`.

    Both kinds of cell must be there.
    """
    eps = SFM_EPS if module.guarded else SFM_PAPER_EPS

    def moments(features: Tensor, cells: Tensor) -> Moments:
        rows = rows_of(features)[cells].double()
        deviation = (rows.var(0, correction=0) + eps).sqrt()
        return Moments(rows.mean(0).cpu().numpy(), deviation.cpu().numpy())

    return Modulation(
        stage,
        level,
        index.active.numel(),
        index.clean.numel(),
        moments(fused, index.active),
        moments(output, index.active),
        moments(output, index.clean),
    )


def attention(
    module: SparseNonLocal, rows: Tensor, keys: Tensor, index: ActiveIndex, cell: tuple[int, int]
) -> tuple[Gathering, ...]:
    """What SNL's two steps draw on at one degraded cell of one picture, by the definition (eq. 3-5).

    `rows` [n, C] and `keys` [m, C] are the operator's inputs. The sum of `weights` times the keys is
    what the step gathers.
    """
    _, height, width = index.shape
    y, x = cell
    grid = keys.new_zeros(height * width, keys.shape[1]).index_copy_(0, index.clean, keys)
    grid = grid.view(height, width, -1)
    gathered = rows[(index.active == y * width + x).nonzero()[0, 0]]
    steps: list[Gathering] = []
    for number, blend in enumerate(module.blends):
        query = module.between(gathered) if number else gathered
        e = torch.tanh(blend(query)) if module.guarded else blend(query)
        step = _gather(module.scale, query, e, grid, ~index.mask[0, 0], cell)
        steps.append(step)
        drawn = torch.einsum("hw,hwc->c", torch.from_numpy(step.weights).to(grid), grid)
        gathered = query + drawn if module.guarded else drawn
    return tuple(steps)


def _gather(
    scale: float, query: Tensor, e: Tensor, grid: Tensor, clean: Tensor, cell: tuple[int, int]
) -> Gathering:
    y, x = cell
    at = clean.new_zeros(4, *clean.shape)
    at[0, y, :x] = at[1, y, x + 1 :] = at[2, :y, x] = at[3, y + 1 :, x] = True
    weights = grid.new_zeros(clean.shape)
    keys, focus = [], []
    for direction, strength in zip(at & clean, e, strict=True):
        o = torch.softmax(scale * (grid[direction] @ query), dim=0)
        weights[direction] = strength * o
        keys.append(len(o))
        focus.append(float(1 / o.square().sum()) if len(o) else 0.0)
    blend, drawn = (values.double().cpu().numpy() for values in (e, weights))
    return Gathering(blend, np.array(keys), np.array(focus), drawn)
