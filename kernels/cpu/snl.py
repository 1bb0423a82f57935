"""SNL on a CPU, forward and backward, on rows ([cells, channels]).

Every row and column of a picture is compacted to its degraded queries and clean keys; left and right
share one matrix of scores, and the blend weights are folded into it, so a line costs two products.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.cpu.precision import LOW_PRECISION, summing
from kernels.tables import LineTables

FAR = 1e30
"""What a score is lowered by where softmax shall give zero; finite, so an empty direction gives no NaN."""

LEAST = 1e-12
"""The least share of a line's softmax from which that of one direction can be had by division."""


def snl_step(queries: Tensor, keys: Tensor, blend: Tensor, lines: LineTables, scale: float) -> Tensor:
    """`queries` [n, C], `keys` [m, C], `blend` [n, 4] (left, right, up, down) -> gathered [n, C]."""
    walk = _Walk(lines, queries, maps=3)
    slots = _slots(lines.query_at, queries)
    for part, out in zip(walk.attention(queries, keys, blend, scale), walk.queries(slots), strict=True):
        low, high, *_ = part.maps
        low_factor, high_factor = part.factors.split(1, dim=2)
        torch.bmm(low.mul_(low_factor).addcmul_(high, high_factor), part.keys, out=out)
    return F.embedding_bag(lines.query_slots, slots, mode="sum").to(queries.dtype)


def snl_step_backward(
    grad: Tensor, queries: Tensor, keys: Tensor, blend: Tensor, lines: LineTables, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and blend; the scores are computed again."""
    if queries.dtype in LOW_PRECISION:
        grads = snl_step_backward(grad.float(), queries.float(), keys.float(), blend.float(), lines, scale)
        return grads[0].to(queries.dtype), grads[1].to(keys.dtype), grads[2].to(blend.dtype)
    walk = _Walk(lines, queries, maps=4)
    grad_at = grad.index_select(0, lines.query_at)
    query_slots, key_slots = _slots(lines.query_at, queries), _slots(lines.key_at, queries)
    share_slots = _slots(lines.query_at, blend[:, :2])
    for part, upstream, shares, out, out_keys in zip(
        walk.attention(queries, keys, blend, scale), walk.queries(grad_at), walk.queries(share_slots),
        walk.queries(query_slots), walk.keys(key_slots), strict=True,
    ):  # fmt: skip
        low, high, mixed, grad_mixed = part.maps
        torch.bmm(upstream, part.keys.transpose(1, 2), out=grad_mixed)
        for number, side in enumerate((low, high)):
            torch.sum(torch.mul(side, grad_mixed, out=mixed), 2, out=shares[..., number])
        shares.mul_(part.scales)
        low_factor, high_factor = part.factors.split(1, dim=2)
        low_held, high_held = part.factors.mul(shares).split(1, dim=2)
        torch.mul(low, low_factor, out=mixed).addcmul_(high, high_factor)
        held = low.mul_(low_held).addcmul_(high, high_held)
        grad_scores = grad_mixed.mul_(mixed).sub_(held)
        torch.bmm(grad_scores, part.keys, out=out)
        torch.bmm(mixed.transpose(1, 2), upstream, out=out_keys)
        out_keys.baddbmm_(grad_scores.transpose(1, 2), part.queries, alpha=scale)
    return (
        F.embedding_bag(lines.query_slots, query_slots, mode="sum").mul_(scale),
        F.embedding_bag(lines.key_slots, key_slots, mode="sum"),
        share_slots.index_select(0, lines.query_slots.view(-1)).view(-1, 4),
    )


class _Attention(NamedTuple):
    """Of a chunk of l lines with Q query slots and K key slots each."""

    queries: Tensor  # [l, Q, C]
    keys: Tensor  # [l, K, C]
    maps: tuple[Tensor, ...]
    """[l, Q, K] each: the softmax over the keys before and over those after, then scratch."""
    scales: Tensor
    """[l, Q, 2]: what the first two maps are to be multiplied by; zero for one without keys."""
    factors: Tensor
    """[l, Q, 2]: the same times the blend weights."""


class _Walk:
    """SNL's chunks of lines, one after another.

    They share the memory of their queries, keys and `maps` score maps: it stays in a CPU's cache, which
    fresh memory does not. A chunk costs dozens of calls of torch, so what can be is done for all at once.
    Low precision is widened there: chunks have a shape each, and oneDNN would compile its products anew.
    """

    def __init__(self, lines: LineTables, like: Tensor, maps: int) -> None:
        self._shapes: list[tuple[int, int, int]] = lines.chunks.tolist()
        self._lines = lines
        most_scores = max(map(math.prod, self._shapes), default=0)
        memory = partial(like.new_empty, dtype=summing(like.dtype))
        self._maps = memory(maps, most_scores)
        self._queries, self._keys = (
            memory(max((shape[0] * shape[kind] for shape in self._shapes), default=0), like.shape[1])
            for kind in (1, 2)
        )

    def queries(self, slots: Tensor) -> Iterator[Tensor]:
        """Of a table of query slots [s or s+1, *], each chunk's part: views [l, Q, *]."""
        return self._parts(slots, 1)

    def keys(self, slots: Tensor) -> Iterator[Tensor]:
        """Of a table of key slots [t or t+1, *], each chunk's part: views [l, K, *]."""
        return self._parts(slots, 2)

    def _parts(self, slots: Tensor, kind: int) -> Iterator[Tensor]:
        start = 0
        for shape in self._shapes:
            stop = start + shape[0] * shape[kind]
            yield slots[start:stop].view(shape[0], shape[kind], -1)
            start = stop

    def attention(self, queries: Tensor, keys: Tensor, blend: Tensor, scale: float) -> Iterator[_Attention]:
        """Of each chunk, for the queries [n, C], the keys [m, C] and the blend weights [n, 4].

        One softmax over the whole line, parted and divided by the parts' sums: half the exponentials.
        Where a part has next to nothing of the whole, too few bits of it are left, and it gets a softmax
        of its own. The masks are arithmetic (0 or 1, or far below zero): much faster than booleans.
        """
        dtype, device = self._maps.dtype, queries.device
        # Twice a key's place, in between the even numbers: keys are whole, so no comparison is a draw.
        widest = max((width for *_, width in self._shapes), default=0)
        places = 2 * torch.arange(widest, device=device, dtype=dtype) + 1
        far_places = places * FAR
        far_ends = (self._lines.line_keys.to(dtype) * (2 * FAR)).split([count for count, *_ in self._shapes])
        exist = torch.stack([self._lines.before, self._lines.after], 1).clamp_(max=1).to(dtype)
        weights = blend.reshape(-1, 2).index_select(0, self._lines.pairs).to(dtype)
        tables = zip(
            self._shapes, far_ends, self.queries(self._lines.query_at), self.keys(self._lines.key_at),
            self.queries((2 * self._lines.before).to(dtype)), self.queries(exist), self.queries(1 - exist),
            self.queries(weights), strict=True,
        )  # fmt: skip
        for shape, end, query_at, key_at, ahead, there, absent, weight in tables:
            q, k = _gathered(queries, query_at, self._queries), _gathered(keys, key_at, self._keys)
            maps = self._maps[:, : math.prod(shape)].view(-1, *shape)
            low, high, scores, *_ = maps.unbind(0)
            place, far_place = places[: shape[2]], far_places[: shape[2]]
            beyond = torch.sub(end.view(-1, 1, 1), far_place).clamp_(max=0)
            torch.baddbmm(beyond, q, k.transpose(1, 2), alpha=scale, out=scores)
            torch.softmax(scores, dim=2, out=high)
            torch.sub(ahead, place, out=low).clamp_(0, 1).mul_(high)
            high.sub_(low)
            # A part without keys is to be multiplied by anything finite.
            sums = maps[:2].sum(3).permute(1, 2, 0).add_(absent)
            if float(sums.min()) < LEAST:
                far = (ahead - place).mul_(FAR)
                torch.softmax(scores + far.clamp(max=0), dim=2, out=low)
                torch.softmax(scores.sub_(far.clamp_(min=0)), dim=2, out=high)
                sums.fill_(1)
            scales = torch.div(there, sums, out=sums)
            yield _Attention(q, k, maps.unbind(0), scales, weight * scales)


def _gathered(rows: Tensor, at: Tensor, memory: Tensor) -> Tensor:
    """The `rows` [n, C] in slots [l, S, 1], in `memory`: [l, S, C]."""
    found = memory[: at.numel()]
    if rows.dtype == memory.dtype:
        torch.index_select(rows, 0, at.view(-1), out=found)
    else:
        found.copy_(rows.index_select(0, at.view(-1)))
    return found.view(*at.shape[:2], rows.shape[1])


def _slots(table: Tensor, like: Tensor) -> Tensor:
    """A row for each slot of a table, to be written, and a zero row for the cells without a slot."""
    slots = like.new_empty(table.numel() + 1, like.shape[1], dtype=summing(like.dtype))
    slots[-1] = 0
    return slots
