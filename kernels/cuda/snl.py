"""SNL on the GPU, forward and backward: launches of `snl.cu` over the line tables."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.cuda import device
from kernels.tables import TILE, LineTables

MAX_CHANNELS = 256
"""Most channels of a query or key: what fits in shared memory."""

WARP = 32


def snl_step(queries: Tensor, keys: Tensor, blend: Tensor, lines: LineTables, scale: float) -> Tensor:
    """`queries` [n, C], `keys` [m, C], `blend` [n, 4] (left, right, up, down) -> gathered [n, C]."""
    slots = _slots(lines.query_at, queries.shape[1])
    _along_lines("snl_forward", lines.query_tiles, queries, keys, blend, [], lines, scale, [slots])
    return _gathered(slots, lines.query_slots).to(queries.dtype)


def snl_step_backward(
    grad: Tensor, queries: Tensor, keys: Tensor, blend: Tensor, lines: LineTables, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and blend; the scores are computed again."""
    query_slots, key_slots = (_slots(table, queries.shape[1]) for table in (lines.query_at, lines.key_at))
    shares, logs = _slots(lines.query_at, 2), _slots(lines.query_at, 2)
    inputs = queries, keys, blend, [grad.contiguous()], lines, scale
    _along_lines("snl_query_grad", lines.query_tiles, *inputs, [query_slots, shares, logs])
    _along_lines("snl_key_grad", lines.key_tiles, *inputs, [shares, logs, key_slots])
    return (
        _gathered(query_slots, lines.query_slots).to(queries.dtype),
        _gathered(key_slots, lines.key_slots).to(keys.dtype),
        shares.index_select(0, lines.query_slots.view(-1)).view(-1, 4).to(blend.dtype),
    )


def _along_lines(
    kernel: str, tiles: Tensor, queries: Tensor, keys: Tensor, blend: Tensor, grads: list[Tensor],
    lines: LineTables, scale: float, results: list[Tensor],
) -> None:  # fmt: skip
    if not tiles.shape[0]:
        return
    channels, size = queries.shape[1], queries.element_size()
    # As Sizes in snl.cu: a block with wide rows has one warp, and so half a tile.
    warps = 1 if -(-channels // 16) * 16 * size + 16 > 600 else 2
    device.launch(
        "snl", f"{kernel}<{device.TYPES[queries.dtype]}, {channels}>", (tiles.shape[0], TILE // (16 * warps)),
        (WARP * warps,), queries.contiguous(), keys.contiguous(), blend.contiguous(), *grads,
        lines.query_at, lines.key_at, lines.before, tiles, scale, *results,
    )  # fmt: skip


def _slots(table: Tensor, width: int) -> Tensor:
    """A float32 row for each slot, to be written, and a zero row for the cells without a slot."""
    slots = torch.empty(table.numel() + 1, width, device=table.device)
    slots[-1] = 0
    return slots


def _gathered(slots: Tensor, of_cells: Tensor) -> Tensor:
    return F.embedding_bag(of_cells, slots, mode="sum")
