"""Makes SNL's line tables on the GPU, every line a chunk of its own: launches of `lines.cu`.

Lines are counted first (`count`); with the sizes, once the host has them, the tables are filled (`fill`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.cuda import device
from kernels.tables import LineTables

COUNTS = 5
"""Of a line, as in lines.cu: queries, keys, whether it holds both, tiles of queries, tiles of keys."""
WARP = 32


class Counted(NamedTuple):
    """int32 [COUNTS, lines]: of each line, and of all up to it; the last column is what `fill` asks for."""

    counts: Tensor
    ends: Tensor


def count(mask: Tensor) -> Counted:
    """What the lines of `mask` [N, H, W] hold: all rows, then all columns."""
    rows, lines, height, width = _lines(mask)
    counts = torch.empty(COUNTS, lines, dtype=torch.int32, device=mask.device)
    device.launch("lines", "count_lines", *_warps(lines), mask, rows, lines, height, width, counts)
    return Counted(counts, counts.cumsum(1, dtype=torch.int32))


def fill(mask: Tensor, numbers: Tensor, n: int, counted: Counted, sizes: Sequence[int]) -> LineTables:
    """The tables of `mask` [N, H, W], whose `n` degraded cells and others are numbered in `numbers` [P]."""
    rows, lines, height, width = _lines(mask)
    s, t, mixed, query_tiles, key_tiles = sizes

    def table(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=mask.device)

    tables = LineTables(
        table(s), table(s), table(t), table(s), table(s), table(n, 2), table(mask.numel() - n, 2),
        table(mixed, 3, dtype=torch.int64), table(mixed), table(query_tiles, 6), table(key_tiles, 6),
    )  # fmt: skip
    device.launch(
        "lines", "fill_lines", *_warps(lines),
        mask, numbers, rows, lines, height, width, *counted, s, t, *tables,
    )  # fmt: skip
    return tables


def _lines(mask: Tensor) -> tuple[int, int, int, int]:
    """How many rows and how many lines there are, and the sides of a picture."""
    pictures, height, width = mask.shape
    return pictures * height, pictures * (height + width), height, width


def _warps(lines: int) -> tuple[tuple[int], tuple[int]]:
    """A grid and its blocks, of a warp a line."""
    return (-(-lines * WARP // device.THREADS),), (device.THREADS,)
