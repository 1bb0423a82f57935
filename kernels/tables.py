"""What the operators walk: the degraded cells of a mask, their neighbours, and the lines they stand on.

`kernels.index` makes these tables; here is what they hold, and the checks that they fit.
Shape letters: N pictures, H x W cells, P = N*H*W, n degraded (active) cells, m clean cells.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

TILE = 32
"""Most cells of a tile of a line, as in snl.cu and lines.cu."""


class LineTables(NamedTuple):
    """The rows and columns that hold both kinds of cell: SNL's queries (degraded) and keys (clean).

    The lines are sorted by their number of degraded cells and cut into chunks (for the GPU's kernels, each
    stands alone). A chunk of l lines gives each Q query slots and K key slots; slots are numbered through,
    line after line and chunk after chunk: s query slots, t key slots. int64, for the kernels int32.
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
    """[chunks, 3], int64: l, Q and K of each."""
    line_keys: Tensor
    """[lines]: how many keys each line holds, in the order of their slots."""
    query_tiles: Tensor
    """[., 6], for the GPU's kernels: axis, first query slot, queries, first key slot and keys of a line, and
    where in the line this tile of at most TILE queries starts. Empty on a CPU."""
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


def _check_ranges(bounds: dict[str, tuple[Tensor, int]]) -> None:
    """Each table's numbers must be at least 0 and below its bound. Reads them from a GPU all at once."""
    held = {name: pair for name, pair in bounds.items() if pair[0].numel()}
    extremes = [bound.long() for table, _ in held.values() for bound in table.aminmax()]
    found = torch.stack(extremes).view(-1, 2).tolist() if extremes else []
    for (name, (_, beyond)), (low, high) in zip(held.items(), found, strict=True):
        if low < 0 or high >= beyond:
            raise ValueError(f"{name} holds {low} to {high}, outside 0 to {beyond - 1}: use build_index")
