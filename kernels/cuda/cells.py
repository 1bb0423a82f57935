"""Finds the degraded cells of a mask on the GPU, and their neighbours: launches of `cells.cu`."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.cuda import device

CELLS = 256  # of a block, as in cells.cu


def compact(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of the degraded cells of `mask` [N, H, W], sorted by the neighbours they have and then
    ascending; of the clean cells, ascending; and how many degraded cells are in each of the four groups.
    """
    cells, (height, width) = mask.numel(), mask.shape[1:]
    blocks = -(-cells // CELLS)
    counts = torch.empty(blocks, dtype=torch.int32, device=mask.device)
    device.launch("cells", "count_cells", (blocks,), (CELLS,), mask, cells, counts)
    ends = counts.cumsum(0, dtype=torch.int32)
    n = int(ends[-1])
    active, clean = (torch.empty(size, dtype=torch.int64, device=mask.device) for size in (n, cells - n))
    orders = torch.empty(n, dtype=torch.int32, device=mask.device)
    device.launch(
        "cells", "compact_cells", (blocks,), (CELLS,),
        mask, cells, height, width, ends - counts, active, clean, orders,
    )  # fmt: skip
    orders, permutation = orders.sort(stable=True)
    return active[permutation], clean, torch.bincount(orders >> 9, minlength=4)


def neighbours(mask: Tensor, active: Tensor) -> Tensor:
    """The table [n, 9], int32, of the degraded cells `active` of `mask` [N, H, W]."""
    n, (height, width) = active.numel(), mask.shape[1:]
    numbers = torch.empty(mask.numel(), dtype=torch.int32, device=mask.device)
    table = torch.empty(n, 9, dtype=torch.int32, device=mask.device)
    if n:
        grid, block = (-(-n // device.THREADS),), (device.THREADS,)
        device.launch("cells", "number_cells", grid, block, active, n, numbers)
        device.launch("cells", "neighbour_table", grid, block, mask, height, width, active, n, numbers, table)
    return table
