"""SC on a CPU, forward and backward, on rows ([cells, channels]).

It multiplies first and gathers afterwards: Y = X W once for the three taps of a column, then each cell
sums nine rows of Y; band after band of the picture, so that Y stays in the cache. The neighbour table is
symmetric (neighbours[p, k] = q iff neighbours[q, 8-k] = p), so its backward pass is a gather and two
products as well: no scatter, and the same bits every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.cpu.precision import LOW_PRECISION, STEPS, evened


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
    wide = rows.new_empty(rows.shape[0] + _spare(rows), out_weight.shape[1])
    buffer = wide[: rows.shape[0]]
    buffer[:, :channels] = rows
    plan = _Plan(bands, rows.dtype)
    taps = plan.taps(neighbours)
    products = rows.new_zeros(plan.slots, weights[0].shape[0])  # those of absent taps stay zero
    for weight, bias in zip(weights, biases, strict=True):
        growth, width = weight.shape[:2]
        seen, outputs = wide[:, :width], buffer[:, width : width + growth]
        matrices = _by_column(weight)
        for number, columns in enumerate(plan.columns):
            for matrix, (rows_at, slots_at, _) in zip(matrices, columns, strict=True):
                torch.mm(seen[rows_at], matrix, out=products[slots_at].view(-1, 3 * growth))
            for done in plan.completed_by(number):
                gathered = F.embedding_bag(taps[done], products, mode="sum")
                torch.add(gathered, bias, out=outputs[done]).relu_()
    return _fused(wide, plan, out_weight, out_bias)[: rows.shape[0]], buffer


def sc_block_backward(
    grad: Tensor,
    buffer: Tensor,
    neighbours: Tensor,
    bands: Tensor,
    weights: Sequence[Tensor],
    out_weight: Tensor,
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor]:
    """Gradients of rows, weights, biases, out_weight and out_bias."""
    n, spare = grad.shape[0], _spare(grad)
    wide = F.pad(buffer, (0, 0, 0, spare)) if spare else buffer
    grad_wide = grad.new_zeros(n + spare, out_weight.shape[1])
    grad_buffer = torch.mm(grad, out_weight, out=grad_wide[:n])
    fed = list(_fed(_Plan(bands, grad.dtype), neighbours))
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
            grad_wide[rows_at, :width].addmm_(spread, matrices[column].t())
            by_column[column].addmm_(wide[rows_at, :width].t(), spread)
        grad_weights.append(by_column.view(3, -1, 3, growth).permute(3, 1, 2, 0).contiguous())
        grad_biases.append(padded[:n].sum(0))
    return (
        grad_buffer[:, : weights[0].shape[1]].contiguous(),
        grad_weights[::-1],
        grad_biases[::-1],
        grad.t() @ buffer,
        grad.sum(0),
    )


def _fused(wide: Tensor, plan: _Plan, out_weight: Tensor, out_bias: Tensor) -> Tensor:
    """The product of all layers' rows: of low precision band by band, in evened numbers."""
    if not _spare(wide):
        return torch.addmm(out_bias, wide, out_weight.t())
    out = wide.new_empty(wide.shape[0], out_weight.shape[0])
    for columns in plan.columns:
        rows_at = columns[1][0]  # those of the middle column are all of the band's
        torch.addmm(out_bias, wide[rows_at], out_weight.t(), out=out[rows_at])
    return out


def _spare(rows: Tensor) -> int:
    """Rows beyond the last one that products in evened numbers reach."""
    return max(STEPS) - 1 if rows.dtype in LOW_PRECISION else 0


def _fed(plan: _Plan, neighbours: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """Of each band and column of taps: its number, the rows that it multiplied, and of these each the rows
    that its three taps gave to; n, for a row of zeros, where none was and beyond the column's own rows."""
    # Tap k carried cell q to the cell whose tap 8-k it is; a column's taps are 3*dy + column.
    mirrored = neighbours.flip(1)
    for columns in plan.columns:
        for column, (rows_at, slots_at, own) in enumerate(columns):
            at = mirrored[own, column::3].reshape(-1)
            beyond = slots_at.stop - slots_at.start - len(at)
            yield column, rows_at, F.pad(at, (0, beyond), value=len(neighbours)) if beyond else at


class _Plan:
    """How SC walks its bands: which rows each column of taps multiplies, and where the products stand.

    The products of three bands are held, a band's in one of three places in turn: those that the cells
    of the one in the middle gather from. In front of them are three rows of zeros, for absent taps.
    """

    def __init__(self, bands: Tensor, dtype: torch.dtype) -> None:
        first, both, last, _ = bands.unbind(1)
        sizes = bands.sum(1)
        start = sizes.cumsum(0) - sizes
        # A tap of the left column serves the cell to the right, one of the middle column every cell.
        starts = torch.stack([start, start, start + first], 1)
        counts = torch.stack([first + both, sizes, both + last], 1)
        even = evened(counts, dtype)
        room = int(3 * even.sum(1).max())
        place = torch.arange(len(bands))[:, None] % 3 * room + 3
        slots = place + 3 * (even.cumsum(1) - even)
        self._sizes, self._first_slots = sizes, slots - 3 * starts
        self._bands = [slice(*pair) for pair in zip(start.tolist(), (start + sizes).tolist(), strict=True)]
        self.slots = 3 + min(len(bands), 3) * room
        """Rows of products held."""
        shapes = zip(*(table.tolist() for table in (starts, counts, even, slots)), strict=True)
        self.columns = [
            [
                (slice(a, a + wide), slice(at, at + 3 * wide), slice(a, a + count))
                for a, count, wide, at in zip(*band, strict=True)
            ]
            for band in shapes
        ]
        """[b][3]: the rows that a column of taps multiplies, where their products go, and those it has to."""

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


def _by_column(weight: Tensor) -> Tensor:
    """[G, C, 3, 3] -> [3, C, 3*G]: a matrix for each column of taps."""
    return weight.permute(3, 1, 2, 0).reshape(3, weight.shape[1], -1)


def _through_relu(grad: Tensor, outputs: Tensor, out: Tensor) -> None:
    torch.ops.aten.threshold_backward.grad_input(grad, outputs, 0, grad_input=out)


def _as_picture(rows: Tensor, shape: tuple[int, int, int]) -> Tensor:
    return rows.reshape(*shape, -1).permute(0, 3, 1, 2)


def _as_rows(pictures: Tensor) -> Tensor:
    return pictures.permute(0, 2, 3, 1).reshape(-1, pictures.shape[1])
