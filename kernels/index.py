"""Where the degraded pixels are: the index that SC and SNL share, built once a mask and level.

Shape letters: N pictures, H x W cells, P = N*H*W, n degraded (active) cells, m clean cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import cuda

SC_BREAK_EVEN = 0.85
"""Density from which SC's dense form is the faster one (measured: `python -m kernels.benchmark`)."""

BAND_CELLS = 1 << 10
"""Degraded cells of a band, about: SC works through one after another, and stays in a CPU's cache."""

CHUNK_SCORES = 1 << 17
"""Most query-key scores that a chunk of lines may hold: bounds SNL's memory, and stays in a CPU's cache."""

GPU_CHUNK_SCORES = 1 << 24
"""The same on a GPU, where few large products are wanted (torch's form only: the kernels need no chunks)."""

MOST_CELLS = (1 << 31) // 9 - 1
"""Whose nine neighbours can be numbered in 32 bits."""

ABSENT = 1 << 40
"""A slot number beyond all others: the cell's line is in no table."""


class LineTables(NamedTuple):
    """The rows and columns that hold both kinds of cell: SNL's queries (degraded) and keys (clean).

    The lines of an axis are sorted by their number of degraded cells and cut into chunks. A chunk of
    l lines gives each Q query slots and K key slots; slots are numbered through, line after line and
    chunk after chunk, rows before columns: s query slots, t key slots. int64, on a GPU int32.
    """

    query_at: Tensor
    """[s]: the active cell (row number) in a query slot, n in padding."""
    key_at: Tensor
    """[t]: the clean cell (row number) in a key slot, 0 in padding."""
    before: Tensor
    """[s]: how many keys of its line stand before a query. Keys are in order: a direction is a comparison."""
    after: Tensor
    """[s]: how many stand after it."""
    query_slots: Tensor
    """[n, 2]: the slots of an active cell on its row and column, s where the line holds no clean cell."""
    key_slots: Tensor
    """[m, 2]: the slots of a clean cell on its row and column, t where the line holds no degraded cell."""
    chunks: Tensor
    """[chunks, 4], int64 on the CPU: axis (0 rows, 1 columns), l, Q and K of each."""
    query_tiles: Tensor
    """[., 6], for the GPU's kernels: axis, first query slot, queries, first key slot and keys of a line, and
    where in the line this tile of at most cuda.TILE queries starts. Empty on a CPU."""
    key_tiles: Tensor
    """[., 6]: the same for tiles of keys."""


@dataclass(frozen=True)
class ActiveIndex:
    """The degraded cells of one mask at one level, and the tables that the operators walk.

    `mask` bool [N, 1, H, W]; `active` [n] and `clean` [m] flat positions (picture*H*W + y*W + x),
    int64. The clean cells ascend. The active ones stand in bands of whole picture rows (on a GPU, one
    band), so that the neighbours of a band's cells are in it, the one before and the one after. A band
    is grouped: first the cells with an active cell in the next image column of their 3x3 window only,
    then those with one on both sides, those with one in the previous column only, and those with
    neither; each group ascends (on a GPU, cells with the same neighbours stand together and ascend). So
    the rows of a band that a tap of SC in either outer column can serve are one range: `bands` [b, 4]
    (int64, on the CPU) holds the sizes of the groups. `neighbours` [n, 9]: for each active cell the row
    numbers of the active cells in its 3x3 window in raster order, n where there is none (int64, on a
    GPU int32); empty ([0, 9]) where the mask is so full that SC takes its dense form. `lines`: SNL's
    tables, None where they were not asked for. Raises ValueError where the tables do not fit.
    """

    mask: Tensor
    active: Tensor
    clean: Tensor
    neighbours: Tensor
    bands: Tensor
    lines: LineTables | None

    def __post_init__(self) -> None:
        n, cells = self.active.numel(), self.mask.numel()
        if n + self.clean.numel() != cells or self.neighbours.shape not in ((n, 9), (0, 9)):
            raise ValueError(
                f"{n} active and {self.clean.numel()} clean cells with neighbours "
                f"{list(self.neighbours.shape)} do not index a mask of {cells} cells: use build_index"
            )
        bounds = {"active": (self.active, cells), "clean": (self.clean, cells)}
        bounds["neighbours"] = (self.neighbours, n + 1)
        if self.lines is not None:
            lines, slots, keys = self.lines, self.lines.query_at.numel(), self.lines.key_at.numel()
            bounds |= {"query_at": (lines.query_at, n + 1), "query_slots": (lines.query_slots, slots + 1)}
            bounds |= {"key_at": (lines.key_at, cells - n), "key_slots": (lines.key_slots, keys + 1)}
        _check_ranges(bounds)

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
    if mask.numel() > MOST_CELLS:
        raise ValueError(f"an index holds up to {MOST_CELLS} cells, not {mask.numel()}: use a smaller batch")
    cells = mask[:, 0].contiguous()
    active, clean, bands = _banded(cells)
    lines = _line_tables(cells, active, clean) if non_local else None
    return ActiveIndex(mask, active, clean, _neighbours(cells, active), bands, lines)


def _check_ranges(bounds: dict[str, tuple[Tensor, int]]) -> None:
    """Each table's numbers must be at least 0 and below its bound. Reads them from a GPU all at once."""
    held = {name: pair for name, pair in bounds.items() if pair[0].numel()}
    extremes = [bound.long() for table, _ in held.values() for bound in table.aminmax()]
    found = torch.stack(extremes).view(-1, 2).tolist() if extremes else []
    for (name, (_, beyond)), (low, high) in zip(held.items(), found, strict=True):
        if low < 0 or high >= beyond:
            raise ValueError(f"{name} holds {low} to {high}, outside 0 to {beyond - 1}: use build_index")


def _on_kernels(tensor: Tensor) -> bool:
    return tensor.is_cuda and cuda.unavailable() is None


def _banded(cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The active positions in the order that ActiveIndex describes, the clean ones, and the bands."""
    if _on_kernels(cells):
        active, clean, sizes = cuda.compact(cells)
        return active, clean, sizes[None].cpu()
    column = cells.clone()  # is any of the three cells of this image column in the window active?
    column[:, 1:] |= cells[:, :-1]
    column[:, :-1] |= cells[:, 1:]
    previous, following = torch.zeros_like(cells), torch.zeros_like(cells)
    previous[:, :, 1:] = column[:, :, :-1]
    following[:, :, :-1] = column[:, :, 1:]
    ascending = cells.view(-1).nonzero()[:, 0]
    previous, following = previous.view(-1)[ascending].int(), following.view(-1)[ascending]
    group = torch.where(following, previous, 3 - previous)
    key = 4 * _band_of_row(cells)[torch.div(ascending, cells.shape[2], rounding_mode="floor")] + group
    bands = torch.bincount(key, minlength=4 * (int(key.max()) // 4 + 1 if key.numel() else 1)).view(-1, 4)
    clean = (~cells).view(-1).nonzero()[:, 0]
    return ascending[torch.argsort(key, stable=True)], clean, bands.cpu()


def _band_of_row(cells: Tensor) -> Tensor:
    """The band of each picture row [N*H]: rows next to one another are in the same or in the next one."""
    counts = cells.sum(2).view(-1)
    size = counts.max().clamp(min=cells.numel() if cells.is_cuda else BAND_CELLS)
    return (counts.cumsum(0) - counts) // size


def _neighbours(cells: Tensor, active: Tensor) -> Tensor:
    n = active.numel()
    if n > SC_BREAK_EVEN * cells.numel():
        return active.new_empty(0, 9)
    if _on_kernels(cells):
        return cuda.neighbours(cells, active)
    pictures, height, width = cells.shape
    picture_row = torch.div(active, width, rounding_mode="floor")
    picture = torch.div(picture_row, height, rounding_mode="floor")
    # A frame of one cell round each picture: the window's corner is then at a fixed distance.
    corner = active + 2 * picture_row + picture * 2 * (width + 2)
    steps = torch.arange(3, device=active.device)
    window = (steps[:, None] * (width + 2) + steps).view(-1)
    numbers = active.new_full((pictures * (height + 2) * (width + 2),), n)
    numbers[corner + window[4]] = torch.arange(n, device=active.device)
    return numbers[corner[:, None] + window]


def _line_tables(cells: Tensor, active: Tensor, clean: Tensor) -> LineTables:
    n, m = active.numel(), clean.numel()
    rows, columns = _along(cells, active, clean, upright=False), _along(cells, active, clean, upright=True)
    row_s, row_t = rows.slot_counts()
    column_s, column_t = columns.slot_counts()
    s, t = row_s + column_s, row_t + column_t
    query_slots = torch.stack([rows.query_slots, columns.query_slots + row_s], 1).clamp_(max=s)
    key_slots = torch.stack([rows.key_slots, columns.key_slots + row_t], 1).clamp_(max=t)
    # Cells without a slot write to the one past the end, which is then cut off.
    query_at, key_at = active.new_full((s + 1,), n), active.new_zeros(t + 1)
    query_at[query_slots] = torch.arange(n, device=cells.device)[:, None]
    key_at[key_slots] = torch.arange(m, device=cells.device)[:, None]
    before, after = active.new_zeros(2, s + 1)
    before[query_slots] = torch.stack([rows.before, columns.before], 1)
    after[query_slots] = torch.stack([rows.after, columns.after], 1)
    chunks = torch.cat([F.pad(rows.chunks, (1, 0), value=0), F.pad(columns.chunks, (1, 0), value=1)])
    none = active.new_empty(0, 6)
    tables = LineTables(
        query_at[:s], key_at[:t], before[:s], after[:s], query_slots, key_slots, chunks, none, none
    )
    if not _on_kernels(cells):
        return tables
    lines = torch.cat([rows.numbered(0, 0, 0), columns.numbered(1, row_s, row_t)])
    tiled = tables._replace(query_tiles=_tiles(lines, lines[:, 2]), key_tiles=_tiles(lines, lines[:, 4]))
    return LineTables(*(table.int() for table in tiled))._replace(chunks=chunks)


def _tiles(lines: Tensor, counts: Tensor) -> Tensor:
    """Lines [lines, 5] cut into tiles of at most cuda.TILE of the `counts` cells of each: [tiles, 6]."""
    per_line = (counts + cuda.TILE - 1) // cuda.TILE
    number = torch.arange(int(per_line.sum()), device=lines.device)
    of_line = torch.arange(len(lines), device=lines.device).repeat_interleave(per_line)
    first = (per_line.cumsum(0) - per_line)[of_line]
    return torch.cat([lines[of_line], (number - first)[:, None] * cuda.TILE], 1)


class _Along(NamedTuple):
    """The tables along one axis, its slots numbered from 0 (ABSENT and more where there is none)."""

    query_slots: Tensor  # [n]
    key_slots: Tensor  # [m]
    before: Tensor  # [n]: keys before each active cell
    after: Tensor  # [n]
    chunks: Tensor  # [chunks, 3]: l, Q, K
    lines: Tensor  # [lines, 4]: first query slot, queries, first key slot and keys of each

    def slot_counts(self) -> tuple[int, int]:
        s, t = (self.chunks[:, :1] * self.chunks[:, 1:]).sum(0).tolist()
        return s, t

    def numbered(self, axis: int, first_query: int, first_key: int) -> Tensor:
        """`lines` with the axis in front, for slots that follow others."""
        return F.pad(self.lines + self.lines.new_tensor([first_query, 0, first_key, 0]), (1, 0), value=axis)


def _along(cells: Tensor, active: Tensor, clean: Tensor, *, upright: bool) -> _Along:
    """The rows of `cells` [N, H, W], or its columns (`upright`)."""
    lying = cells.transpose(1, 2) if upright else cells
    marked = lying.reshape(-1, lying.shape[2])

    def flat(values: Tensor) -> Tensor:
        return (values.reshape(lying.shape).transpose(1, 2) if upright else values).reshape(-1)

    seen = marked.cumsum(1)
    clean_seen = torch.arange(1, marked.shape[1] + 1, device=cells.device) - seen
    lines, chunks = _chunked(seen[:, -1], marked.shape[1])
    widths = chunks[:, 1:].repeat_interleave(chunks[:, 0], dim=0)
    starts = active.new_full((marked.shape[0], 2), ABSENT)
    starts[lines] = (widths.cumsum(0) - widths).to(cells.device)
    slots = flat(torch.where(marked, starts[:, :1] + seen, starts[:, 1:] + clean_seen) - 1)
    before = flat(clean_seen)[active]
    after = flat(clean_seen[:, -1:].expand(marked.shape))[active] - before
    first_query, first_key = starts[lines].unbind(1)
    described = torch.stack([first_query, seen[lines, -1], first_key, clean_seen[lines, -1]], 1)
    return _Along(slots[active], slots[clean], before, after, chunks, described)


def _chunked(counts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The lines with both kinds of cell, most degraded first [lines], and their chunks (l, Q, K)."""
    lines = ((counts > 0) & (counts < length)).nonzero()[:, 0]
    lines = lines[torch.argsort(counts[lines], descending=True, stable=True)]
    most = GPU_CHUNK_SCORES if counts.is_cuda else CHUNK_SCORES
    sizes, chunks, start = counts[lines].tolist(), [], 0
    while start < len(sizes):
        # A chunk's first line has the most queries, its last the most keys.
        stop = min(start + max(most // (sizes[start] * length), 1), len(sizes))
        chunks.append((stop - start, sizes[start], length - sizes[stop - 1]))
        start = stop
    return lines, torch.tensor(chunks, dtype=torch.int64).view(-1, 3)
