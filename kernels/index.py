"""Where the degraded pixels are: the index that SC and SNL share, built once a mask and level.

Shape letters: N pictures, H x W cells, P = N*H*W, n degraded (active) cells, m clean cells.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kernels import cuda

SC_BREAK_EVEN = 0.85
"""Density from which SC's dense form is the faster one (measured: `python -m kernels.benchmark`)."""

BAND_CELLS = 1 << 10
"""Degraded cells of a band, about: SC works through one after another, and stays in a CPU's cache."""

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


class LineTables(NamedTuple):
    """The rows and columns that hold both kinds of cell: SNL's queries (degraded) and keys (clean).

    The lines are sorted by their number of degraded cells and cut into chunks. A chunk of l lines gives
    each Q query slots and K key slots; slots are numbered through, line after line and chunk after
    chunk: s query slots, t key slots. int64, on a GPU int32.
    """

    query_at: Tensor
    """[s]: the active cell (row number) in a query slot, 0 in padding."""
    pairs: Tensor
    """[s]: twice that, one more on a column: the pair of its blend weights. 0 in padding."""
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
    """[chunks, 3], int64 on the CPU: l, Q and K of each."""
    line_keys: Tensor
    """[lines]: how many keys each line holds, in the order of their slots."""
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
    known: InitVar[bool] = False
    """That the tables fit, as those of build_index do: they are then not looked through."""

    def __post_init__(self, known: bool) -> None:
        if known:
            return
        n, cells = self.active.numel(), self.mask.numel()
        banded, shape = int(self.bands.sum()), self.neighbours.shape
        if n + self.clean.numel() != cells or banded != n or shape not in ((n, 9), (0, 9)):
            raise ValueError(
                f"{n} active and {self.clean.numel()} clean cells with neighbours {list(shape)} and bands "
                f"of {banded} do not index a mask of {cells} cells: use build_index"
            )
        bounds = {"active": (self.active, cells), "clean": (self.clean, cells)}
        bounds["neighbours"] = (self.neighbours, n + 1)
        if self.lines is not None:
            lines, slots, keys = self.lines, self.lines.query_at.numel(), self.lines.key_at.numel()
            bounds |= {"query_at": (lines.query_at, n), "query_slots": (lines.query_slots, slots + 1)}
            bounds |= {"key_at": (lines.key_at, cells - n), "key_slots": (lines.key_slots, keys + 1)}
            bounds |= {"pairs": (lines.pairs, 2 * n)}
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
    return ActiveIndex(mask, active, clean, _neighbours(cells, active), bands, lines, known=True)


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
    rows, columns = _Axis(cells, upright=False), _Axis(cells, upright=True)
    queries, keys = torch.cat([rows.queries, columns.queries]), torch.cat([rows.keys, columns.keys])
    lines, chunks = _chunked(queries, keys)
    widths = chunks[:, 1:].repeat_interleave(chunks[:, 0], dim=0)
    starts = active.new_full((queries.numel(), 2), ABSENT)
    starts[lines] = (widths.cumsum(0) - widths).to(cells.device)
    s, t = (chunks[:, :1] * chunks[:, 1:]).sum(0).tolist()
    upright = lines >= rows.keys.numel()
    slots = rows.slots(starts[: rows.keys.numel()]), columns.slots(starts[rows.keys.numel() :])
    query_slots = torch.stack([axis[active] for axis in slots], 1).clamp_(max=s)
    key_slots = torch.stack([axis[clean] for axis in slots], 1).clamp_(max=t)
    before = torch.stack([rows.before()[active], columns.before()[active]], 1)
    after = torch.stack([rows.all_keys()[active], columns.all_keys()[active]], 1) - before
    # Cells without a slot write to the one past the end, which is then cut off.
    query_at, pairs, befores, afters = active.new_zeros(4, s + 1)
    key_at = active.new_zeros(t + 1)
    pair = torch.arange(2 * active.numel(), device=cells.device).view(-1, 2)
    query_at[query_slots], pairs[query_slots] = pair // 2, pair
    befores[query_slots], afters[query_slots] = before, after
    key_at[key_slots] = torch.arange(clean.numel(), device=cells.device)[:, None]
    none = active.new_empty(0, 6)
    tables = LineTables(
        query_at[:s], pairs[:s], key_at[:t], befores[:s], afters[:s], query_slots, key_slots, chunks,
        keys[lines], none, none,
    )  # fmt: skip
    if not _on_kernels(cells):
        return tables
    (first_query, first_key), queries, keys = starts[lines].unbind(1), queries[lines], keys[lines]
    described = torch.stack([upright.long(), first_query, queries, first_key, keys], 1)
    tiled = tables._replace(query_tiles=_tiles(described, queries), key_tiles=_tiles(described, keys))
    return LineTables(*(table.int() for table in tiled))._replace(chunks=chunks)


class _Axis:
    """The rows of `cells` [N, H, W], or its columns (`upright`): lines, and what stands where on them."""

    def __init__(self, cells: Tensor, *, upright: bool) -> None:
        self._lying, self._upright = cells.transpose(1, 2) if upright else cells, upright
        self._marked = self._lying.reshape(-1, self._lying.shape[2])
        self._seen = self._marked.cumsum(1)
        length = self._marked.shape[1]
        self._clean_seen = torch.arange(1, length + 1, device=cells.device) - self._seen
        self.queries, self.keys = self._seen[:, -1], self._clean_seen[:, -1]
        """[lines]: active and clean cells of each."""

    def slots(self, starts: Tensor) -> Tensor:
        """[P]: the slot of every cell, where those of a line start at `starts` [lines, 2]: queries, keys."""
        queries, keys = starts[:, :1] + self._seen, starts[:, 1:] + self._clean_seen
        return self._of_cells(torch.where(self._marked, queries, keys) - 1)

    def before(self) -> Tensor:
        """[P]: the clean cells up to every cell on its line."""
        return self._of_cells(self._clean_seen)

    def all_keys(self) -> Tensor:
        """[P]: all clean cells of a cell's line."""
        return self._of_cells(self.keys[:, None].expand(self._marked.shape))

    def _of_cells(self, values: Tensor) -> Tensor:
        there = values.reshape(self._lying.shape)
        return (there.transpose(1, 2) if self._upright else there).reshape(-1)


def _tiles(lines: Tensor, counts: Tensor) -> Tensor:
    """Lines [lines, 5] cut into tiles of at most cuda.TILE of the `counts` cells of each: [tiles, 6]."""
    per_line = (counts + cuda.TILE - 1) // cuda.TILE
    number = torch.arange(int(per_line.sum()), device=lines.device)
    of_line = torch.arange(len(lines), device=lines.device).repeat_interleave(per_line)
    first = (per_line.cumsum(0) - per_line)[of_line]
    return torch.cat([lines[of_line], (number - first)[:, None] * cuda.TILE], 1)


def _chunked(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """The lines with both kinds of cell, most degraded first [lines], and their chunks (l, Q, K).

    `queries` and `keys` [lines]: how many each holds.
    """
    lines = ((queries > 0) & (keys > 0)).nonzero()[:, 0]
    lines = lines[torch.argsort(queries[lines], descending=True, stable=True)]
    most = GPU_CHUNK_SCORES if queries.is_cuda else CHUNK_SCORES
    most_padding = most * CHUNK_PADDING // CHUNK_SCORES
    counts = torch.stack([queries[lines], keys[lines]], 1).tolist()
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
    return lines, torch.tensor(chunks, dtype=torch.int64).view(-1, 3)
