"""Finds the degraded cells of a mask on the GPU, and their neighbours: launches of `cells.cu`.

Cells are counted first (`count`); with the sizes, once the host has them, they are put in place (`place`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.cuda import device

CELLS = 2048
"""Of a block, as in cells.cu; so are the kinds of cells, and the first of each group after the first."""
KINDS = 257
GROUPS = (28, 224, 252, 256)


class Placed(NamedTuple):
    """Degraded and clean cells: positions of the former, sorted by the neighbours they have and then
    ascending, of the latter, ascending (int64); `numbers` [P], int32, each cell's row among its like; and how
    many degraded cells are in each of the four groups, int64 [1, 4] on the CPU."""

    active: Tensor
    clean: Tensor
    numbers: Tensor
    bands: Tensor


def count(mask: Tensor) -> Tensor:
    """How many cells of `mask` [N, H, W] are of each kind, or of one before it, up to the end of each block:
    int32 [KINDS, blocks], of which the last column is what `place` asks for."""
    cells, (height, width) = mask.numel(), mask.shape[1:]
    blocks = -(-cells // CELLS)
    counts = torch.empty(KINDS * blocks, dtype=torch.int32, device=mask.device)
    device.launch("cells", "count_cells", (blocks,), (device.THREADS,), mask, cells, height, width, counts)
    return counts.cumsum(0, dtype=torch.int32).view(KINDS, blocks)


def place(mask: Tensor, ends: Tensor, sizes: Sequence[int]) -> Placed:
    """The cells of `mask` [N, H, W] in their order, from what `count` gives."""
    cells, (height, width) = mask.numel(), mask.shape[1:]
    groups = [sizes[kind - 1] for kind in GROUPS]
    n = groups[-1]
    active, clean = (torch.empty(size, dtype=torch.int64, device=mask.device) for size in (n, cells - n))
    numbers = torch.empty(cells, dtype=torch.int32, device=mask.device)
    device.launch(
        "cells", "compact_cells", (ends.shape[1],), (device.THREADS,),
        mask, cells, height, width, ends, n, active, clean, numbers,
    )  # fmt: skip
    bands = torch.tensor([[stop - start for start, stop in pairwise((0, *groups))]])
    return Placed(active, clean, numbers, bands)


def neighbours(mask: Tensor, active: Tensor, numbers: Tensor) -> Tensor:
    """The table [n, 9], int32, of the degraded cells `active` of `mask` [N, H, W]."""
    n, (height, width) = active.numel(), mask.shape[1:]
    table = torch.empty(n, 9, dtype=torch.int32, device=mask.device)
    if n:
        grid, block = (-(-n // device.THREADS),), (device.THREADS,)
        device.launch("cells", "neighbour_table", grid, block, mask, height, width, active, n, numbers, table)
    return table
