"""The fast forms for CPUs, forward and backward, on rows ([cells, channels]).

SC multiplies first and gathers afterwards: Y = X W once for all nine taps, then each cell sums nine
rows of Y. The neighbour table is symmetric (neighbours[p, k] = q iff neighbours[q, 8-k] = p), so its
backward pass is a gather and two products as well: no scatter, and the same bits every time.
SNL compacts every row and column to its degraded queries and clean keys; left and right share one
matrix of scores, and the blend weights are folded into it, so an axis costs two products.
These are plain torch and so also run, less fast, on other devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

FAR = -1e30
"""A score that softmax turns to zero, finite so that an empty direction gives no NaN."""


def sc_block(
    rows: Tensor,
    neighbours: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    out_weight: Tensor,
    out_bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """`rows` [n, C] -> output [n, C_out] and the buffer [n+1, C + L*G] of all layers, for backward."""
    n, channels = rows.shape
    buffer = rows.new_zeros(n + 1, out_weight.shape[1])
    buffer[:n, :channels] = rows
    taps = _tap_rows(neighbours)
    for weight, bias in zip(weights, biases, strict=True):
        width = weight.shape[1]
        products = (buffer[:, :width] @ _by_tap(weight)).view(-1, weight.shape[0])
        summed = F.embedding_bag(taps, products, mode="sum")
        buffer[:n, width : width + weight.shape[0]] = summed.add_(bias).relu_()
    return torch.addmm(out_bias, buffer[:n], out_weight.t()), buffer


def sc_block_backward(
    grad: Tensor, buffer: Tensor, neighbours: Tensor, weights: Sequence[Tensor], out_weight: Tensor
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor]:
    """Gradients of rows, weights, biases, out_weight and out_bias."""
    n = grad.shape[0]
    seen = buffer[:n]
    grad_seen = grad @ out_weight
    opposite = neighbours.flip(1).reshape(-1)
    padded = grad.new_zeros(n + 1, weights[0].shape[0])
    grad_weights, grad_biases = [], []
    for weight in reversed(weights):
        growth, width = weight.shape[:2]
        torch.mul(grad_seen[:, width : width + growth], seen[:, width : width + growth] > 0, out=padded[:n])
        spread = padded.index_select(0, opposite).view(n, 9 * growth)
        grad_seen[:, :width].addmm_(spread, _by_tap(weight).t())
        grad_weights.append(_from_tap(seen[:, :width].t() @ spread, growth))
        grad_biases.append(padded[:n].sum(0))
    channels = weights[0].shape[1]
    return (
        grad_seen[:, :channels].contiguous(),
        grad_weights[::-1],
        grad_biases[::-1],
        grad.t() @ seen,
        grad.sum(0),
    )


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
        out = F.conv2d(seen, weight, bias, padding=1).relu_()
        cells[:, weight.shape[1] : weight.shape[1] + weight.shape[0]] = _as_rows(out) * marked
    return torch.addmm(out_bias, cells[active], out_weight.t()), cells


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
    grad_weights, grad_biases = [], []
    for weight in reversed(weights):
        growth, width = weight.shape[:2]
        # A layer's output is zero at clean cells, so this drops their gradients as well.
        through = grad_cells[:, width : width + growth] * (cells[:, width : width + growth] > 0)
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


def snl_step(
    queries: Tensor,
    keys: Tensor,
    blend: Tensor,
    row_lines: Sequence[Tensor],
    column_lines: Sequence[Tensor],
    scale: float,
) -> Tensor:
    """`queries` [n, C], `keys` [m, C], `blend` [n, 4] (left, right, up, down) -> gathered [n, C]."""
    padded_keys, padded_queries, padded_blend = _padded(keys), _padded(queries), _padded(blend)
    gathered = torch.zeros_like(padded_queries)
    for axis, lines in enumerate((row_lines, column_lines)):
        for at, key_at, before, totals in _chunks(lines):
            q, k = padded_queries[at], padded_keys[key_at]
            low, high, low_weight, high_weight = _attention(
                q, k, padded_blend[at][..., 2 * axis : 2 * axis + 2], before, totals, scale
            )
            mixed = low.mul_(low_weight).addcmul_(high, high_weight)
            gathered[at.view(-1)] += torch.bmm(mixed, k).view(-1, k.shape[2])
    return gathered[:-1]


def snl_step_backward(
    grad: Tensor,
    queries: Tensor,
    keys: Tensor,
    blend: Tensor,
    row_lines: Sequence[Tensor],
    column_lines: Sequence[Tensor],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and blend; the scores are computed again."""
    padded_keys, padded_queries, padded_blend = _padded(keys), _padded(queries), _padded(blend)
    padded_grad = _padded(grad)
    grad_queries, grad_keys = torch.zeros_like(padded_queries), torch.zeros_like(padded_keys)
    grad_blend = torch.zeros_like(padded_blend)
    for axis, lines in enumerate((row_lines, column_lines)):
        sides = slice(2 * axis, 2 * axis + 2)
        for at, key_at, before, totals in _chunks(lines):
            q, k, g = padded_queries[at], padded_keys[key_at], padded_grad[at]
            low, high, low_weight, high_weight = _attention(
                q, k, padded_blend[at][..., sides], before, totals, scale
            )
            grad_mixed = torch.bmm(g, k.transpose(1, 2))
            low_share = (low * grad_mixed).sum(2, keepdim=True)
            high_share = (high * grad_mixed).sum(2, keepdim=True)
            low.mul_(low_weight)
            high.mul_(high_weight)
            grad_keys_here = torch.bmm((low + high).transpose(1, 2), g)
            grad_scores = (
                low.mul_(grad_mixed - low_share).add_(high.mul_(grad_mixed - high_share)).mul_(scale)
            )
            grad_keys_here.baddbmm_(grad_scores.transpose(1, 2), q)
            grad_queries[at.view(-1)] += torch.bmm(grad_scores, k).view(-1, k.shape[2])
            grad_keys[key_at.view(-1)] += grad_keys_here.view(-1, k.shape[2])
            exists = torch.cat([before[..., None] > 0, (before < totals[:, None])[..., None]], 2)
            grad_blend[at, sides] = torch.cat([low_share, high_share], 2) * exists
    return grad_queries[:-1], grad_keys[:-1], grad_blend[:-1]


def _attention(
    q: Tensor, k: Tensor, blend: Tensor, before: Tensor, totals: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Softmax over the keys before and after each query [l, Q, K], and their weights [l, Q, 1]."""
    scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
    place = torch.arange(k.shape[1], device=k.device)
    is_low = place < before[..., None]
    beyond = is_low | (place >= totals[:, None, None])
    low = torch.softmax(scores.masked_fill(~is_low, FAR), dim=2)
    high = torch.softmax(scores.masked_fill_(beyond, FAR), dim=2)
    low_weight = blend[..., :1] * (before > 0)[..., None]
    high_weight = blend[..., 1:] * (before < totals[:, None])[..., None]
    return low, high, low_weight, high_weight


def sfm(features: Tensor, mask: Tensor, eps: float, max_ratio: float, fade: float) -> tuple[Tensor, Tensor]:
    """Features N x C x H x W -> modulated, and the statistics [6, N, C] that backward needs."""
    wide = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    marked = mask.to(wide.dtype)
    counts = _set_counts(marked)
    means = _set_means(wide, marked, counts)
    centred = wide - _by_set(means, marked)
    variances = _set_means(centred.square(), marked, counts)
    sigmas = (variances + eps).sqrt()
    free = sigmas[1] / sigmas[0]
    ratio = free.clamp(1 / max_ratio, max_ratio)
    # Two terms whose product is zero where an image lacks degraded or clean pixels.
    weight = (counts / (counts + fade).clamp(min=1)).prod(0) * (counts > 0).all(0)
    gain = weight * (ratio - 1)
    shift = weight * (means[1] - ratio * means[0])
    out = wide + marked * (gain[..., None, None] * wide + shift[..., None, None])
    held = ratio != free
    statistics = torch.stack([means[0], means[1], sigmas[0], sigmas[1], ratio, held.to(wide.dtype)])
    return out.to(features.dtype), statistics


def sfm_backward(grad: Tensor, features: Tensor, mask: Tensor, statistics: Tensor, fade: float) -> Tensor:
    """The gradient of the features; that through a clamped ratio is zero."""
    wide, upstream = features.to(statistics.dtype), grad.to(statistics.dtype)
    marked = mask.to(wide.dtype)
    counts = _set_counts(marked)
    weight = (counts / (counts + fade).clamp(min=1)).prod(0) * (counts > 0).all(0)
    mu1, mu0, sigma1, sigma0, ratio, held = statistics
    through = upstream * marked * weight[..., None, None]
    total = through.sum((2, 3))
    grad_ratio = (1 - held) * ((through * wide).sum((2, 3)) - mu1 * total)
    slope1 = -grad_ratio * sigma0 / sigma1.square() / sigma1
    slope0 = grad_ratio / sigma1 / sigma0
    n1, n0 = counts.clamp(min=1)
    scale = _by_set(torch.stack([slope1 / n1, slope0 / n0]), marked)
    offset = _by_set(torch.stack([(-ratio * total - slope1 * mu1) / n1, (total - slope0 * mu0) / n0]), marked)
    direct = upstream + through * (ratio - 1)[..., None, None]
    return (direct + scale * wide + offset).to(grad.dtype)


def _set_counts(marked: Tensor) -> Tensor:
    degraded = marked.sum((2, 3))
    return torch.stack([degraded, marked.shape[2] * marked.shape[3] - degraded])


def _set_means(values: Tensor, marked: Tensor, counts: Tensor) -> Tensor:
    """Means over the degraded and over the clean cells [2, N, C], as one batched product."""
    cells = values.permute(0, 2, 3, 1).flatten(1, 2)
    share = marked.flatten(2)
    both = torch.cat([share, 1 - share], dim=1)
    return torch.bmm(both, cells).transpose(0, 1) / counts.clamp(min=1)


def _by_set(pair: Tensor, marked: Tensor) -> Tensor:
    """[2, N, C] -> N x C x H x W: the first where marked, the second elsewhere."""
    return pair[1][..., None, None] + marked * (pair[0] - pair[1])[..., None, None]


def _tap_rows(neighbours: Tensor) -> Tensor:
    return neighbours * 9 + torch.arange(9, device=neighbours.device)


def _by_tap(weight: Tensor) -> Tensor:
    """[G, C, 3, 3] -> [C, 9*G]."""
    return weight.permute(1, 2, 3, 0).reshape(weight.shape[1], -1)


def _from_tap(weight: Tensor, growth: int) -> Tensor:
    """[C, 9*G] -> [G, C, 3, 3]."""
    return weight.view(-1, 3, 3, growth).permute(3, 0, 1, 2).contiguous()


def _padded(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows.new_zeros(1, rows.shape[1])])


def _chunks(lines: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    for start in range(0, len(lines), 4):
        queries, keys, before, totals = lines[start : start + 4]
        yield queries, keys, before, totals


def _as_picture(rows: Tensor, shape: tuple[int, int, int]) -> Tensor:
    return rows.reshape(*shape, -1).permute(0, 3, 1, 2)


def _as_rows(pictures: Tensor) -> Tensor:
    return pictures.permute(0, 2, 3, 1).reshape(-1, pictures.shape[1])
