"""Where the degraded pixels are: makes the tables that SC and SNL walk, once a mask and level.

Shape letters: N pictures, H x W cells, P = N*H*W, n degraded (active) cells, m clean cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.cuda import cells as gpu_cells
from kernels.cuda import device
from kernels.cuda import lines as gpu_lines
from kernels.tables import ActiveIndex, LineTables

SC_BREAK_EVEN = 0.85
"""Density from which SC's dense form is the faster one (measured: `python -m kernels.benchmark`)."""

GPU_SC_BREAK_EVEN = 0.65
"""The same on a GPU, whose dense convolutions waste less: between .75 (forward) and .5 (backward as well)."""

BAND_CELLS = 1 << 10
"""Degraded cells of a band, about: SC works through one after another, and stays in a CPU's cache. Twice as
many have room where features take half the bytes of float32."""

CHUNK_SCORES = 1 << 17
"""Most query-key scores that a chunk of lines may hold: bounds SNL's memory, and stays in a CPU's cache."""

CHUNK_PADDING = 1 << 14
"""Most of a chunk's scores that may be padding: about as many as cost what one chunk more does."""

GPU_CHUNK_SCORES = 1 << 24
"""The same on a GPU, where few large products are wanted (torch's form only: the kernels need no chunks)."""

MOST_CELLS = (1 << 31) // 9 - 1
"""Whose nine neighbours can be numbered in 32 bits."""

ABSENT = 1 << 40
"""A slot number beyond all others: the cell's line is in no table."""


def build_index(mask: Tensor, *, non_local: bool = True, dtype: torch.dtype = torch.float32) -> ActiveIndex:
    """Index a mask, bool [N, 1, H, W], True = degraded. `non_local` builds SNL's line tables too.

    `dtype` is that of the features: others can be used with it too, less fast on a CPU. Raises TypeError
    where the mask is not boolean, ValueError where its shape is another.
    """
    return build_indices([mask], non_local=[non_local], dtype=dtype)[0]


def build_indices(
    masks: Sequence[Tensor], *, non_local: Sequence[bool], dtype: torch.dtype = torch.float32
) -> list[ActiveIndex]:
    """The index of each mask, as `build_index`. On a GPU the host waits once for all of them."""
    for mask in masks:
        _check(mask)
    cells = [mask[:, 0].contiguous() for mask in masks]
    if _on_kernels(masks[0]):
        return _by_kernels(masks, cells, non_local)
    return [_by_torch(*each, dtype) for each in zip(masks, cells, non_local, strict=True)]


def _check(mask: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise TypeError(f"the mask must be boolean, not {mask.dtype}: compare it with a threshold first")
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(f"the mask must be N x 1 x H x W, not {list(mask.shape)}")
    if mask.numel() > MOST_CELLS:
        raise ValueError(f"an index holds up to {MOST_CELLS} cells, not {mask.numel()}: use a smaller batch")


def _on_kernels(tensor: Tensor) -> bool:
    return tensor.is_cuda and device.unavailable() is None


def _by_kernels(
    masks: Sequence[Tensor], cells: Sequence[Tensor], non_local: Sequence[bool]
) -> list[ActiveIndex]:
    counted = [gpu_cells.count(each) for each in cells]
    lined = [gpu_lines.count(each) if wanted else None for each, wanted in zip(cells, non_local, strict=True)]
    totals = [ends[:, -1] for ends in (*counted, *(lines.ends for lines in lined if lines))]
    # The one synchronisation: with the sizes of all tables, nothing else has to come to the host.
    sizes = iter(found.tolist() for found in torch.cat(totals).cpu().split([len(each) for each in totals]))
    placed = [gpu_cells.place(each, ends, next(sizes)) for each, ends in zip(cells, counted, strict=True)]
    made = []
    for mask, each, at, lines in zip(masks, cells, placed, lined, strict=True):
        active, clean, numbers, bands = at
        tables = gpu_lines.fill(each, numbers, len(active), lines, next(sizes)) if lines else None
        sparse = _wants_neighbours(each, active)
        near = gpu_cells.neighbours(each, active, numbers) if sparse else active.new_empty(0, 9)
        made.append(ActiveIndex(mask, active, clean, near, bands, tables, known=True))
    return made


def _by_torch(mask: Tensor, cells: Tensor, non_local: bool, dtype: torch.dtype) -> ActiveIndex:
    active, clean, bands = _banded(cells, BAND_CELLS * max(4 // dtype.itemsize, 1))
    lines = _line_tables(cells, active, clean) if non_local else None
    return ActiveIndex(mask, active, clean, _neighbours(cells, active), bands, lines, known=True)


def _wants_neighbours(cells: Tensor, active: Tensor) -> bool:
    """Whether SC will not take its dense form, which needs none."""
    return active.numel() <= (GPU_SC_BREAK_EVEN if cells.is_cuda else SC_BREAK_EVEN) * cells.numel()


def _banded(cells: Tensor, band_cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """The active positions in the order that ActiveIndex describes, the clean ones, and the bands."""
    framed = F.pad(cells.view(torch.uint8), (1, 1, 1, 1))
    # Is any of the three cells of an image column active that are in a window?
    column = framed[:, :-2] | framed[:, 1:-1] | framed[:, 2:]
    previous, following = column[:, :, :-2], column[:, :, 2:].view(torch.bool)
    group = torch.where(following, previous, 3 - previous)
    ascending, clean = cells.view(-1).nonzero()[:, 0], (~cells).view(-1).nonzero()[:, 0]
    key = group.view(-1)[ascending] + 4 * _bands_of(ascending, cells, band_cells)
    bands = torch.bincount(key, minlength=4 * (int(key.max()) // 4 + 1 if key.numel() else 1)).view(-1, 4)
    return ascending[torch.argsort(key, stable=True)], clean, bands.cpu()


def _bands_of(ascending: Tensor, cells: Tensor, band_cells: int) -> Tensor | int:
    """The band of each active cell: rows next to one another are in the same or in the next one."""
    if cells.is_cuda or len(ascending) <= band_cells:
        return 0
    counts = cells.sum(2).view(-1)
    bands = (counts.cumsum(0) - counts) // counts.max().clamp(min=band_cells)
    return bands.repeat_interleave(counts)


def _neighbours(cells: Tensor, active: Tensor) -> Tensor:
    n = active.numel()
    if not _wants_neighbours(cells, active):
        return active.new_empty(0, 9)
    pictures, height, width = cells.shape
    # A frame of one cell round each picture: the windows then lie at one distance from their corners.
    framed = width + 2
    corner = torch.add(active, torch.div(active, width, rounding_mode="floor"), alpha=2)
    corner.add_(torch.div(active, height * width, rounding_mode="floor"), alpha=2 * framed)
    numbers = active.new_full((pictures * (height + 2) * framed,), n)
    numbers[corner + framed + 1] = torch.arange(n, device=active.device)
    windows = numbers.as_strided((len(numbers) - 2 * framed - 2, 3, 3), (1, framed, 1))
    return windows[corner].view(n, 9)


def _line_tables(cells: Tensor, active: Tensor, clean: Tensor) -> LineTables:
    counts = _counts_of_lines(cells)
    return _filled(cells, active, clean, counts, *_chunked(counts))


def _counts_of_lines(cells: Tensor) -> Tensor:
    """How many active and clean cells each line holds: [2, .], of all rows, then of all columns."""
    both = torch.stack([cells, ~cells])
    return torch.cat([both.sum(3).flatten(1), both.sum(2).flatten(1)], 1)


def _filled(
    cells: Tensor,
    active: Tensor,
    clean: Tensor,
    counts: Tensor,
    lines: Tensor,
    chunks: Tensor,
    starts: Tensor,
) -> LineTables:
    """The tables for the lines, their chunks, and where slots start, as `_chunked` gives them."""
    s, t = (chunks[:, :1] * chunks[:, 1:]).sum(0).tolist()
    # Of every cell, line after line: twice its row number among its kind, one more on a column.
    pair = active.new_empty(cells.numel())
    for kind in (active, clean):
        pair[kind] = torch.arange(0, 2 * kind.numel(), 2, device=cells.device)
    pair, marked = _line_after_line(pair.view(cells.shape)), _line_after_line(cells)
    pair[cells.numel() :] += 1
    query_places, key_places = marked.nonzero()[:, 0], marked.logical_not_().nonzero()[:, 0]
    query_pairs, query_slots = pair[query_places], _numbered(starts[0], counts[0], s)
    key_pairs, key_slots = pair[key_places], _numbered(starts[1], counts[1], t)
    keys, earlier = torch.stack([counts[1], counts[1].cumsum(0) - counts[1]]).repeat_interleave(counts[0], 1)
    before = query_places - torch.arange(len(query_places), device=cells.device) - earlier
    # Cells without a slot write to the one past the end, which is then cut off.
    pairs, befores, afters, key_at = *active.new_zeros(3, s + 1), active.new_zeros(t + 1)
    pairs[query_slots], befores[query_slots], afters[query_slots] = query_pairs, before, keys - before
    key_at[key_slots] = key_pairs >> 1
    none = active.new_empty(0, 6)
    return LineTables(
        pairs[:s] >> 1, pairs[:s], key_at[:t], befores[:s], afters[:s],
        torch.empty_like(query_slots).index_copy_(0, query_pairs, query_slots).view(-1, 2),
        torch.empty_like(key_slots).index_copy_(0, key_pairs, key_slots).view(-1, 2),
        chunks, counts[1, lines], none, none,
    )  # fmt: skip


def _line_after_line(cells: Tensor) -> Tensor:
    """[N, H, W] -> [2P]: the cells of all rows, then those of all columns."""
    return torch.cat([cells.reshape(-1), cells.transpose(1, 2).reshape(-1)])


def _numbered(starts: Tensor, counts: Tensor, end: int) -> Tensor:
    """The slots of a kind's cells, line after line: `counts` of each from its start on, none over `end`."""
    base = (starts - (counts.cumsum(0) - counts)).repeat_interleave(counts)
    return base.add_(torch.arange(len(base), device=base.device)).clamp_(max=end)


def _chunked(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The lines with both kinds of cell, most degraded first, their chunks, and where slots start [2, .].

    `counts` [2, .]: how many queries and keys each line holds.
    """
    most = GPU_CHUNK_SCORES if counts.is_cuda else CHUNK_SCORES
    held = list(zip(*counts.tolist(), strict=True))
    mixed = [line for line, (queries, keys) in enumerate(held) if queries and keys]
    mixed.sort(key=lambda line: -held[line][0])
    chunks = _cut([held[line] for line in mixed], most)
    starts, s, t, number = [[ABSENT] * len(held) for _ in counts], 0, 0, iter(mixed)
    for length, queries, keys in chunks:
        for line in islice(number, length):
            starts[0][line], starts[1][line] = s, t
            s, t = s + queries, t + keys
    return (
        counts.new_tensor(mixed),
        torch.tensor(chunks, dtype=torch.int64).view(-1, 3),
        counts.new_tensor(starts),
    )


def _cut(counts: list[tuple[int, int]], most: int) -> list[tuple[int, int, int]]:
    """Lines, by how many queries (falling) and keys they hold, in chunks of at most `most` scores."""
    most_padding = most * CHUNK_PADDING // CHUNK_SCORES
    chunks, start = [], 0
    while start < len(counts):
        width, longest = counts[start]
        used, stop = width * longest, start + 1
        while stop < len(counts):
            size, length = counts[stop]
            length, used = max(length, longest), used + size * length
            scores = (stop + 1 - start) * width * length
            if scores > most or scores - used > most_padding:
                break
            longest, stop = length, stop + 1
        chunks.append((stop - start, width, longest))
        start = stop
    return chunks
