"""SNL's line tables as the kernels want them, in torch's own operations: what the kernels' are to equal."""

import torch
from torch import Tensor

from kernels.index import ABSENT, _counts_of_lines, _filled
from kernels.tables import TILE, LineTables


def each_line_alone(mask: Tensor, active: Tensor, clean: Tensor) -> LineTables:
    """Of a mask bool [N, 1, H, W] and the positions of its cells, in the order of their rows."""
    cells = mask[:, 0]
    counts = _counts_of_lines(cells)
    mixed = (counts > 0).all(0)
    held, lines = counts * mixed, mixed.nonzero()[:, 0]
    starts = (held.cumsum(1) - held).masked_fill_(~mixed, ABSENT)
    chunks = torch.cat([torch.ones_like(lines)[None], counts[:, lines]]).t()
    tables = _filled(cells, active, clean, counts, lines, chunks, starts)
    axis = (torch.arange(counts.shape[1], device=cells.device) >= cells[:, :, 0].numel()).long()
    described = torch.stack([axis, starts[0], counts[0], starts[1], counts[1]], 1)[lines]
    query_tiles, key_tiles = (_tiles(described, described[:, column]) for column in (2, 4))
    tables = tables._replace(query_tiles=query_tiles, key_tiles=key_tiles)
    return LineTables(*(table.int() for table in tables))._replace(chunks=chunks)


def _tiles(lines: Tensor, counts: Tensor) -> Tensor:
    """Lines [lines, 5] cut into tiles of at most TILE of the `counts` cells of each: [tiles, 6]."""
    per_line = (counts + TILE - 1) // TILE
    number = torch.arange(int(per_line.sum()), device=lines.device)
    of_line = torch.arange(len(lines), device=lines.device).repeat_interleave(per_line)
    first = (per_line.cumsum(0) - per_line)[of_line]
    return torch.cat([lines[of_line], (number - first)[:, None] * TILE], 1)
