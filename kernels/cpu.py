"""The fast forms for CPUs, forward and backward, on rows ([cells, channels]).

SC multiplies first and gathers afterwards: Y = X W once for the three taps of a column, then each cell
sums nine rows of Y; band after band of the picture, so that Y stays in the cache. The neighbour table is
symmetric (neighbours[p, k] = q iff neighbours[q, 8-k] = p), so its backward pass is a gather and two
products as well: no scatter, and the same bits every time.
SNL compacts every row and column to its degraded queries and clean keys; left and right share one
matrix of scores, and the blend weights are folded into it, so a line costs two products.
These are plain torch and so also run, less fast, on other devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.index import LineTables

LOW_PRECISION = (torch.float16, torch.bfloat16)
"""Types in which SNL's masks and SFM's statistics cannot be held: these work in float32 inside."""

FAR = 1e30
"""What a score is lowered by where softmax shall give zero; finite, so an empty direction gives no NaN."""

LEAST = 1e-12
"""The least share of a line's softmax from which that of one direction can be had by division."""


def sc_block(
    rows: Tensor,
    neighbours: Tensor,
    bands: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    out_weight: Tensor,
    out_bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """`rows` [n, C] -> output [n, C_out] and the buffer [n, C + L*G] of all layers, for backward."""
    channels = rows.shape[1]
    buffer = rows.new_empty(rows.shape[0], out_weight.shape[1])
    buffer[:, :channels] = rows
    plan = _Plan(bands)
    taps = plan.taps(neighbours)
    products = rows.new_zeros(plan.slots, weights[0].shape[0])  # those of absent taps stay zero
    for weight, bias in zip(weights, biases, strict=True):
        growth, width = weight.shape[:2]
        seen, outputs = buffer[:, :width], buffer[:, width : width + growth]
        matrices = _by_column(weight)
        for number, columns in enumerate(plan.columns):
            for matrix, (rows_at, slots_at) in zip(matrices, columns, strict=True):
                torch.mm(seen[rows_at], matrix, out=products[slots_at].view(-1, 3 * growth))
            for done in plan.completed_by(number):
                gathered = F.embedding_bag(taps[done], products, mode="sum")
                torch.add(gathered, bias, out=outputs[done]).relu_()
    return torch.addmm(out_bias, buffer, out_weight.t()), buffer


def sc_block_backward(
    grad: Tensor,
    buffer: Tensor,
    neighbours: Tensor,
    bands: Tensor,
    weights: Sequence[Tensor],
    out_weight: Tensor,
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor]:
    """Gradients of rows, weights, biases, out_weight and out_bias."""
    n = grad.shape[0]
    grad_buffer = grad @ out_weight
    # Tap k carried cell q to the cell whose tap 8-k it is; a column's taps are 3*dy + column.
    mirrored = neighbours.flip(1)
    fed = [
        (column, rows_at, mirrored[rows_at, column::3].reshape(-1))
        for columns in _Plan(bands).columns
        for column, (rows_at, _) in enumerate(columns)
    ]
    padded = grad.new_zeros(n + 1, weights[0].shape[0])
    grad_weights, grad_biases = [], []
    for weight in reversed(weights):
        growth, width = weight.shape[:2]
        outputs = slice(width, width + growth)
        _through_relu(grad_buffer[:, outputs], buffer[:, outputs], out=padded[:n])
        matrices = _by_column(weight)
        by_column = torch.zeros_like(matrices)
        for column, rows_at, at in fed:
            spread = padded.index_select(0, at).view(-1, 3 * growth)
            grad_buffer[rows_at, :width].addmm_(spread, matrices[column].t())
            by_column[column].addmm_(buffer[rows_at, :width].t(), spread)
        grad_weights.append(by_column.view(3, -1, 3, growth).permute(3, 1, 2, 0).contiguous())
        grad_biases.append(padded[:n].sum(0))
    return (
        grad_buffer[:, : weights[0].shape[1]].contiguous(),
        grad_weights[::-1],
        grad_biases[::-1],
        grad.t() @ buffer,
        grad.sum(0),
    )


class _Plan:
    """How SC walks its bands: which rows each column of taps multiplies, and where the products stand.

    The products of three bands are held, a band's in one of three places in turn: those that the cells
    of the one in the middle gather from. In front of them are three rows of zeros, for absent taps.
    """

    def __init__(self, bands: Tensor) -> None:
        first, both, last, _ = bands.unbind(1)
        sizes = bands.sum(1)
        start = sizes.cumsum(0) - sizes
        # A tap of the left column serves the cell to the right, one of the middle column every cell.
        starts = torch.stack([start, start, start + first], 1)
        counts = torch.stack([first + both, sizes, both + last], 1)
        room = int(3 * counts.sum(1).max())
        place = torch.arange(len(bands))[:, None] % 3 * room + 3
        slots = place + 3 * (counts.cumsum(1) - counts)
        self._sizes, self._first_slots = sizes, slots - 3 * starts
        self._bands = [slice(*pair) for pair in zip(start.tolist(), (start + sizes).tolist(), strict=True)]
        self.slots = 3 + min(len(bands), 3) * room
        """Rows of products held."""
        self.columns = [
            [(slice(a, a + count), slice(at, at + 3 * count)) for a, count, at in zip(*band, strict=True)]
            for band in zip(starts.tolist(), counts.tolist(), slots.tolist(), strict=True)
        ]
        """[b][3]: the rows that a column of taps multiplies, and where their products go."""

    def completed_by(self, number: int) -> list[slice]:
        """The rows of the bands whose products are all there when those of band `number` are."""
        last = number == len(self._bands) - 1
        return self._bands[max(number - 1, 0) : number + last]

    def taps(self, neighbours: Tensor) -> Tensor:
        """[n, 9]: where the product of each tap with its neighbour stands."""
        n = neighbours.shape[0]
        first = self._first_slots.repeat_interleave(self._sizes, 0).to(neighbours.device)
        slots = F.pad(first + 3 * torch.arange(n, device=first.device)[:, None], (0, 0, 0, 1)).view(-1)
        tap = torch.arange(9, device=first.device)
        return slots[3 * neighbours + tap % 3] + torch.div(tap, 3, rounding_mode="floor")


def dense_sc_block(
    rows: Tensor,
    active: Tensor,
    shape: tuple[int, int, int],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    out_weight: Tensor,
    out_bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same through dense convolutions, for masks so full that skipping no longer pays.

    The buffer holds all cells: [P, C + L*G].
    """
    pictures, height, width = shape
    channels = rows.shape[1]
    cells = rows.new_zeros(pictures * height * width, out_weight.shape[1])
    cells[active, :channels] = rows
    marked = rows.new_zeros(cells.shape[0], 1).index_fill_(0, active, 1)
    for weight, bias in zip(weights, biases, strict=True):
        seen = _as_picture(cells[:, : weight.shape[1]], shape)
        out = _as_rows(F.conv2d(seen, weight, bias, padding=1).relu_())
        torch.mul(out, marked, out=cells[:, weight.shape[1] : weight.shape[1] + weight.shape[0]])
    return torch.addmm(out_bias, cells, out_weight.t())[active], cells


def dense_sc_block_backward(
    grad: Tensor,
    cells: Tensor,
    active: Tensor,
    shape: tuple[int, int, int],
    weights: Sequence[Tensor],
    out_weight: Tensor,
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor]:
    """Gradients of rows, weights, biases, out_weight and out_bias of the dense form."""
    grad_cells = grad.new_zeros(cells.shape).index_copy_(0, active, grad @ out_weight)
    through = grad.new_empty(cells.shape[0], weights[0].shape[0])
    grad_weights, grad_biases = [], []
    for weight in reversed(weights):
        growth, width = weight.shape[:2]
        outputs = slice(width, width + growth)
        # A layer's output is zero at clean cells, so this drops their gradients as well.
        _through_relu(grad_cells[:, outputs], cells[:, outputs], out=through)
        grad_in, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            _as_picture(through, shape), _as_picture(cells[:, :width], shape), weight,
            [growth], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, True],
        )  # fmt: skip
        grad_cells[:, :width] += _as_rows(grad_in)
        grad_weights.append(grad_weight)
        grad_biases.append(grad_bias)
    channels = weights[0].shape[1]
    return (
        grad_cells[active, :channels],
        grad_weights[::-1],
        grad_biases[::-1],
        grad.t() @ cells[active],
        grad.sum(0),
    )


def snl_step(queries: Tensor, keys: Tensor, blend: Tensor, lines: LineTables, scale: float) -> Tensor:
    """`queries` [n, C], `keys` [m, C], `blend` [n, 4] (left, right, up, down) -> gathered [n, C]."""
    if queries.dtype in LOW_PRECISION:
        wide = snl_step(queries.float(), keys.float(), blend.float(), lines, scale)
        return wide.to(queries.dtype)
    walk = _Walk(lines, queries, maps=3)
    slots = _slots(lines.query_at, queries)
    for part, out in zip(walk.attention(queries, keys, blend, scale), walk.queries(slots), strict=True):
        low, high, *_ = part.maps
        low_factor, high_factor = part.factors.split(1, dim=2)
        torch.bmm(low.mul_(low_factor).addcmul_(high, high_factor), part.keys, out=out)
    return F.embedding_bag(lines.query_slots, slots, mode="sum")


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
    """

    def __init__(self, lines: LineTables, like: Tensor, maps: int) -> None:
        self._shapes: list[tuple[int, int, int]] = lines.chunks.tolist()
        self._lines = lines
        most_scores = max(map(math.prod, self._shapes), default=0)
        self._maps = like.new_empty(maps, most_scores)
        self._queries, self._keys = (
            like.new_empty(max((shape[0] * shape[kind] for shape in self._shapes), default=0), like.shape[1])
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
        dtype, device = queries.dtype, queries.device
        # Twice a key's place, in between the even numbers: keys are whole, so no comparison is a draw.
        widest = max((width for *_, width in self._shapes), default=0)
        places = 2 * torch.arange(widest, device=device, dtype=dtype) + 1
        far_places = places * FAR
        far_ends = (self._lines.line_keys.to(dtype) * (2 * FAR)).split([count for count, *_ in self._shapes])
        exist = torch.stack([self._lines.before, self._lines.after], 1).clamp_(max=1).to(dtype)
        weights = blend.reshape(-1, 2).index_select(0, self._lines.pairs)
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
    found = torch.index_select(rows, 0, at.view(-1), out=memory[: at.numel()])
    return found.view(*at.shape[:2], rows.shape[1])


def _slots(table: Tensor, like: Tensor) -> Tensor:
    """A row for each slot of a table, to be written, and a zero row for the cells without a slot."""
    slots = like.new_empty(table.numel() + 1, like.shape[1])
    slots[-1] = 0
    return slots


def sfm(features: Tensor, mask: Tensor, eps: float, max_ratio: float, fade: float) -> tuple[Tensor, Tensor]:
    """Features N x C x H x W -> modulated, and the statistics [6, N, C] that backward needs."""
    cells = _wide_cells(features)
    both = _both_sets(mask, cells)
    counts = both.sum(2).t()
    means = torch.bmm(both, cells) / counts.t().clamp(min=1)[..., None]
    squares = torch.zeros_like(means)
    for at in _cell_ranges(cells):
        # Centred first, set by set: a difference of large squares would lose the variance.
        share = both[:, :, at]
        centred = torch.baddbmm(cells[:, at], share.transpose(1, 2), means, alpha=-1)
        squares.baddbmm_(share, centred.square_())
    variances = squares.transpose(0, 1) / counts.clamp(min=1)[..., None]
    mu1, mu0 = means.unbind(1)
    sigma1, sigma0 = (variances + eps).sqrt()
    free = sigma0 / sigma1
    ratio = free.clamp(1 / max_ratio, max_ratio)
    weight = _fade_weight(counts, fade)
    gain, shift = weight * (ratio - 1), weight * (mu0 - ratio * mu1)
    out = cells.clone(memory_format=torch.contiguous_format)
    rows, active = out.view(-1, out.shape[2]), mask.flatten().nonzero()[:, 0]
    picture, degraded = active // cells.shape[1], rows.index_select(0, active)
    moved = gain.index_select(0, picture).add_(1).mul_(degraded).add_(shift.index_select(0, picture))
    rows.index_copy_(0, active, moved)
    statistics = torch.stack([mu1, mu0, sigma1, sigma0, ratio, (ratio != free).to(ratio.dtype)])
    return _as_pictures(out, features).to(features.dtype), statistics


def sfm_backward(grad: Tensor, features: Tensor, mask: Tensor, statistics: Tensor, fade: float) -> Tensor:
    """The gradient of the features; that through a clamped ratio is zero."""
    cells, upstream = _wide_cells(features), _wide_cells(grad)
    both = _both_sets(mask, cells)
    counts = both.sum(2).t()
    weight = _fade_weight(counts, fade)
    mu1, mu0, sigma1, sigma0, ratio, held = statistics
    total, along = torch.zeros_like(mu1)[:, None], torch.zeros_like(mu1)[:, None]
    for at in _cell_ranges(cells):
        total.baddbmm_(both[:, :1, at], upstream[:, at])
        along.baddbmm_(both[:, :1, at], upstream[:, at] * cells[:, at])
    total, along = weight * total[:, 0], weight * along[:, 0]
    grad_ratio = (1 - held) * (along - mu1 * total)
    slope1 = -grad_ratio * sigma0 / sigma1.square() / sigma1
    slope0 = grad_ratio / sigma1 / sigma0
    n1, n0 = counts.clamp(min=1)[..., None]
    scale = torch.stack([slope1 / n1, slope0 / n0], 1)
    offset = torch.stack([(-ratio * total - slope1 * mu1) / n1, (total - slope0 * mu0) / n0], 1)
    through = torch.stack([weight * (ratio - 1), torch.zeros_like(ratio)], 1)
    out = torch.empty_like(cells)
    for at in _cell_ranges(cells):
        share = both[:, :, at].transpose(1, 2)
        part = torch.baddbmm(upstream[:, at], share, offset)
        part.addcmul_(torch.bmm(share, scale), cells[:, at])
        out[:, at] = part.addcmul_(torch.bmm(share, through), upstream[:, at])
    return _as_pictures(out, features).to(grad.dtype)


def _wide_cells(features: Tensor) -> Tensor:
    """N x C x H x W -> [N, H*W, C], low precision widened to float32."""
    wide = features.float() if features.dtype in LOW_PRECISION else features
    return wide.permute(0, 2, 3, 1).flatten(1, 2)


def _as_pictures(cells: Tensor, like: Tensor) -> Tensor:
    n, channels, height, width = like.shape
    return cells.view(n, height, width, channels).permute(0, 3, 1, 2)


def _both_sets(mask: Tensor, cells: Tensor) -> Tensor:
    """[N, 2, H*W]: one for the cells of each set, the degraded and the clean."""
    marked = mask.flatten(2).to(cells.dtype)
    return torch.cat([marked, 1 - marked], dim=1)


def _fade_weight(counts: Tensor, fade: float) -> Tensor:
    """[N, 1]: how much of the correction applies; zero where a picture lacks one of the sets."""
    return ((counts / (counts + fade).clamp(min=1)).prod(0) * (counts > 0).all(0))[:, None]


def _cell_ranges(cells: Tensor) -> Iterator[slice]:
    """Parts whose intermediate values stay in a CPU's cache; all at once elsewhere."""
    count, channels = cells.shape[1:]
    step = max((1 << 17) // (channels * cells.shape[0]), 1) if cells.device.type == "cpu" else max(count, 1)
    for start in range(0, count, step):
        yield slice(start, start + step)


def _by_column(weight: Tensor) -> Tensor:
    """[G, C, 3, 3] -> [3, C, 3*G]: a matrix for each column of taps."""
    return weight.permute(3, 1, 2, 0).reshape(3, weight.shape[1], -1)


def _through_relu(grad: Tensor, outputs: Tensor, out: Tensor) -> None:
    torch.ops.aten.threshold_backward.grad_input(grad, outputs, 0, grad_input=out)


def _as_picture(rows: Tensor, shape: tuple[int, int, int]) -> Tensor:
    return rows.reshape(*shape, -1).permute(0, 3, 1, 2)


def _as_rows(pictures: Tensor) -> Tensor:
    return pictures.permute(0, 2, 3, 1).reshape(-1, pictures.shape[1])
