"""SNL's line tables as the kernels want them, in torch's own operations: what the kernels' are to equal."""

import torch
from torch import Tensor

from kernels.index import ABSENT, _line_after_line, _numbered
from kernels.tables import TILE, LineTables


def each_line_alone(mask: Tensor, active: Tensor, clean: Tensor) -> LineTables:
    """Of a mask bool [N, 1, H, W] and the positions of its cells, in the order of their rows."""
    cells = mask[:, 0]
    both = torch.stack([cells, ~cells])
    counts = torch.cat([both.sum(3).flatten(1), both.sum(2).flatten(1)], 1)  # of all rows, then all columns
    mixed = (counts > 0).all(0)
    held, lines = counts * mixed, mixed.nonzero()[:, 0]
    starts = (held.cumsum(1) - held).masked_fill_(~mixed, ABSENT)
    s, t = held.sum(1).tolist()
    pair = active.new_empty(cells.numel())
    for kind in (active, clean):
        pair[kind] = torch.arange(0, 2 * kind.numel(), 2, device=cells.device)
    pair, marked = _line_after_line(pair.view(cells.shape)), _line_after_line(cells)
    pair[cells.numel() :] += 1
    query_places, key_places = marked.nonzero()[:, 0], (~marked).nonzero()[:, 0]
    query_pairs, query_slots = pair[query_places], _numbered(starts[0], counts[0], s)
    key_pairs, key_slots = pair[key_places], _numbered(starts[1], counts[1], t)
    keys, earlier = torch.stack([counts[1], counts[1].cumsum(0) - counts[1]]).repeat_interleave(counts[0], 1)
    before = query_places - torch.arange(len(query_places), device=cells.device) - earlier
    pairs, befores, afters, key_at = *active.new_zeros(3, s + 1), active.new_zeros(t + 1)
    pairs[query_slots], befores[query_slots], afters[query_slots] = query_pairs, before, keys - before
    key_at[key_slots] = key_pairs >> 1
    axis = (torch.arange(counts.shape[1], device=cells.device) >= cells[:, :, 0].numel()).long()
    described = torch.stack([axis, starts[0], counts[0], starts[1], counts[1]], 1)[lines]
    tables = LineTables(
        pairs[:s] >> 1, pairs[:s], key_at[:t], befores[:s], afters[:s],
        torch.empty_like(query_slots).index_copy_(0, query_pairs, query_slots).view(-1, 2),
        torch.empty_like(key_slots).index_copy_(0, key_pairs, key_slots).view(-1, 2),
        torch.cat([torch.ones_like(lines)[None], counts[:, lines]]).t(), counts[1, lines],
        *(_tiles(described, described[:, column]) for column in (2, 4)),
    )  # fmt: skip
    return LineTables(*(table.int() for table in tables))._replace(chunks=tables.chunks)


def _tiles(lines: Tensor, counts: Tensor) -> Tensor:
    """Lines [lines, 5] cut into tiles of at most TILE of the `counts` cells of each: [tiles, 6]."""
    per_line = (counts + TILE - 1) // TILE
    number = torch.arange(int(per_line.sum()), device=lines.device)
    of_line = torch.arange(len(lines), device=lines.device).repeat_interleave(per_line)
    first = (per_line.cumsum(0) - per_line)[of_line]
    return torch.cat([lines[of_line], (number - first)[:, None] * TILE], 1)
