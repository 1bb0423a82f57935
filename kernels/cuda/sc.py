"""SC on the GPU, forward and backward: launches of `sc.cu`, and torch's own products around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.cuda import device

MAX_GROWTH = 64
"""Most channels that a layer may give: what a tile of the kernels holds."""

ROWS, PRODUCT_THREADS, STRETCH, CHANNELS = 64, 128, 1024, 64  # as in sc.cu
MAX_SPLITS = 64  # of a weight's gradient: bounds the memory for its partial sums


def sc_block(
    rows: Tensor,
    neighbours: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    out_weight: Tensor,
    out_bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """`rows` [n, C] -> output [n, C_out] and the buffer [n, C + L*G] of all layers, for backward."""
    n, channels = rows.shape
    total, growth = out_weight.shape[1], weights[0].shape[0]
    buffer = rows.new_empty(n, total)
    buffer[:, :channels] = rows
    kernel = f"sc_product<{device.TYPES[rows.dtype]}, {growth // 8}, true>"
    for weight, bias in zip(weights, biases, strict=True):
        width = weight.shape[1]
        device.launch(
            "sc", kernel, (-(-n // ROWS), 1), (PRODUCT_THREADS,),
            buffer, total, width, neighbours, n, _by_tap(weight), width, growth, bias.contiguous(),
            buffer[:, width:], None, total,
        )  # fmt: skip
    return torch.addmm(out_bias, buffer, out_weight.t()), buffer


def sc_block_backward(
    grad: Tensor, buffer: Tensor, neighbours: Tensor, weights: Sequence[Tensor], out_weight: Tensor
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor]:
    """Gradients of rows, weights, biases, out_weight and out_bias; summed over the layers in float32."""
    (n, total), kind = buffer.shape, device.TYPES[buffer.dtype]
    grad_buffer = (grad @ out_weight).float()
    grad_weights, grad_biases = [], []
    for weight in reversed(weights):
        growth, width = weight.shape[:2]
        outputs = slice(width, width + growth)
        through = (
            torch.where(buffer[:, outputs] > 0, grad_buffer[:, outputs], 0).to(buffer.dtype).contiguous()
        )
        device.launch(
            "sc", f"sc_product<{kind}, {CHANNELS // 8}, false>", (-(-n // ROWS), -(-width // CHANNELS)),
            (PRODUCT_THREADS,), through, growth, growth, neighbours, n, _by_tap(weight), width, growth, None,
            None, grad_buffer, total,
        )  # fmt: skip
        splits = min(-(-n // STRETCH), MAX_SPLITS)
        partial = grad_buffer.new_empty(splits, 9, width, growth)
        device.launch(
            "sc", f"sc_weight_grad<{kind}, {growth // 8}>", (-(-width // CHANNELS), 9, splits),
            (PRODUCT_THREADS,), buffer, total, width, neighbours, n, through, partial,
        )  # fmt: skip
        by_tap = partial.sum(0).view(3, 3, width, growth)
        grad_weights.append(by_tap.permute(3, 2, 0, 1).contiguous().to(weight.dtype))
        grad_biases.append(through.sum(0, dtype=torch.float32).to(weight.dtype))
    return (
        grad_buffer[:, : weights[0].shape[1]].to(grad.dtype),
        grad_weights[::-1],
        grad_biases[::-1],
        grad.t() @ buffer,
        grad.sum(0),
    )


def _by_tap(weight: Tensor) -> Tensor:
    """[G, C, 3, 3] -> [9, C, G]."""
    return weight.permute(2, 3, 1, 0).reshape(9, weight.shape[1], -1).contiguous()
