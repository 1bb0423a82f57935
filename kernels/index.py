"""Where the degraded pixels are: the index that SC and SNL share, built once a mask and level.

Shape letters: N pictures, H x W cells, P = N*H*W, n degraded (active) cells, m clean cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SC_BREAK_EVEN = 0.8
"""Density from which SC's dense form is the faster one (measured: `python -m kernels.benchmark`)."""

CHUNK_SCORES = 1 << 21
"""Most query-key scores that one chunk of lines may hold: bounds SNL's memory."""


@dataclass(frozen=True)
class ActiveIndex:
    """The degraded cells of one mask at one level, and the tables that the operators walk.

    `mask` bool [N, 1, H, W]; `active` [n] and `clean` [m] flat positions (picture*H*W + y*W + x),
    ascending, int64. `neighbours` [n, 9]: for each active cell the numbers of the active cells in
    its 3x3 window in raster order, n where there is none; empty ([0, 9]) where the mask is so full
    that SC takes its dense form. `row_lines` and `column_lines`: SNL's line tables, None where they
    were not asked for.
    """

    mask: Tensor
    active: Tensor
    clean: Tensor
    neighbours: Tensor
    row_lines: tuple[Tensor, ...] | None
    column_lines: tuple[Tensor, ...] | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, H, W."""
        return self.mask.shape[0], self.mask.shape[2], self.mask.shape[3]

    @property
    def density(self) -> float:
        """Share of degraded cells."""
        return self.active.numel() / max(self.mask.numel(), 1)


def build_index(mask: Tensor, *, non_local: bool = True) -> ActiveIndex:
    """Index a mask, bool [N, 1, H, W], True = degraded. `non_local` builds SNL's line tables too.

    Raises TypeError where the mask is not boolean, ValueError where its shape is another.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"the mask must be boolean, not {mask.dtype}: compare it with a threshold first")
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(f"the mask must be N x 1 x H x W, not {list(mask.shape)}")
    cells = mask[:, 0].contiguous()
    active = cells.view(-1).nonzero()[:, 0]
    clean = (~cells).view(-1).nonzero()[:, 0]
    numbers = torch.empty(cells.numel(), dtype=torch.int64, device=mask.device)
    numbers[active] = torch.arange(active.numel(), device=mask.device)
    numbers[clean] = torch.arange(clean.numel(), device=mask.device)
    numbers = numbers.view(cells.shape)
    row_lines = column_lines = None
    if non_local:
        row_lines = _line_chunks(cells, numbers, active.numel(), clean.numel())
        column_lines = _line_chunks(
            cells.transpose(1, 2), numbers.transpose(1, 2), active.numel(), clean.numel()
        )
    return ActiveIndex(mask, active, clean, _neighbours(cells, active), row_lines, column_lines)


def _neighbours(cells: Tensor, active: Tensor) -> Tensor:
    n = active.numel()
    if n > SC_BREAK_EVEN * cells.numel():
        return active.new_empty(0, 9)
    pictures, height, width = cells.shape
    padded = active.new_full((pictures, height + 2, width + 2), n)
    padded[:, 1:-1, 1:-1][cells] = torch.arange(n, device=active.device)
    picture = torch.div(active, height * width, rounding_mode="floor")
    row = torch.div(active, width, rounding_mode="floor") - picture * height
    corner = (picture * (height + 2) + row) * (width + 2) + active % width
    steps = torch.arange(3, device=active.device)
    window = (steps[:, None] * (width + 2) + steps).view(-1)
    return padded.view(-1)[corner[:, None] + window]


def _line_chunks(cells: Tensor, numbers: Tensor, n: int, m: int) -> tuple[Tensor, ...]:
    """Tables of the lines (last axis of `cells`) that hold both kinds of cell, in chunks of lines.

    Four tensors a chunk of l lines: queries [l, Q] (numbers of degraded cells, padded with n), keys
    [l, K] (numbers of clean cells, padded with m), before [l, Q] (how many of the line's keys stand
    before a query: keys are in order, so direction is a comparison) and totals [l] (keys of a line).
    """
    length = cells.shape[-1]
    marked, order = cells.reshape(-1, length), numbers.reshape(-1, length)
    counts = marked.sum(1)
    lines = ((counts > 0) & (counts < length)).nonzero()[:, 0]
    lines = lines[torch.argsort(counts[lines], descending=True, stable=True)]
    chunks: list[Tensor] = []
    start, sizes = 0, counts[lines].tolist()
    while start < len(sizes):
        # Sorted by count, so a chunk's first line has the most queries and its last the most keys.
        stop = start + 1
        while (
            stop < len(sizes) and (stop + 1 - start) * sizes[start] * (length - sizes[stop]) <= CHUNK_SCORES
        ):
            stop += 1
        chunks += _chunk(
            marked[lines[start:stop]], order[lines[start:stop]], n, m, sizes[start], length - sizes[stop - 1]
        )
        start = stop
    return tuple(chunks)


def _chunk(marked: Tensor, order: Tensor, n: int, m: int, most_queries: int, most_keys: int) -> list[Tensor]:
    rank = marked.cumsum(1)
    place = torch.arange(1, marked.shape[1] + 1, device=marked.device).expand_as(rank)
    line = torch.arange(marked.shape[0], device=marked.device)[:, None].expand_as(rank)
    queries = order.new_full((marked.shape[0], most_queries), n)
    before = torch.zeros_like(queries)
    keys = order.new_full((marked.shape[0], most_keys), m)
    queries[line[marked], rank[marked] - 1] = order[marked]
    before[line[marked], rank[marked] - 1] = (place - rank)[marked]
    clean = ~marked
    keys[line[clean], (place - rank)[clean] - 1] = order[clean]
    return [queries, keys, before, clean.sum(1)]
