"""The operators on NVIDIA GPUs: the kernels in `*.cu`, compiled at run time by CuPy.

They work on torch's tensors in place (no copies), in memory from torch's allocator and on torch's
current stream, so they can be captured in a CUDA graph. No sum is taken by atomics: the same input
gives the same bits. Types: float16 and bfloat16 on tensor cores (summed in float32), and float32.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from kernels.index import LineTables

TYPES = {torch.float16: "half_t", torch.bfloat16: "bfloat_t", torch.float32: "float"}

TILE = 32
"""Cells of a tile of a line in snl.cu."""

WARP = 32
CELLS = 256  # of a block of index.cu
ROWS, PRODUCT_THREADS, STRETCH, CHANNELS = 64, 128, 1024, 64  # as in sc.cu
MAX_GROWTH = 64
MAX_CHANNELS = 256  # of SNL: what fits in shared memory
MAX_SPLITS = 64  # of a weight's gradient: bounds the memory for its partial sums
SFM_BLOCK, SFM_STRETCH = (32, 8), 1024
THREADS = 256


def source(name: str) -> str:
    """The whole code of `NAME.cu`, with what it shares with the others in front."""
    folder = resources.files("kernels")
    return "".join((folder / part).read_text() for part in ("device.cuh", "tile.cuh", f"{name}.cu"))


@lru_cache(maxsize=1)
def unavailable() -> str | None:
    """Why the kernels cannot run here, or None where they can."""
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed (pip install cupy-cuda13x)"
    if not torch.cuda.is_available():
        return "torch sees no NVIDIA GPU"
    if not hasattr(torch.cuda.Stream, "__cuda_stream__"):
        return "torch is older than 2.10 and cannot share its streams"
    if not hasattr(cupy.cuda.Stream, "from_external"):
        return "CuPy is older than 14 and cannot work on torch's streams"
    if cupy.cuda.runtime.runtimeGetVersion() < 12000:
        return "CuPy was built for a CUDA older than 12"
    if torch.cuda.get_device_capability() < (8, 0):
        return "the GPU is older than compute capability 8.0"
    return None


def serves(operator: str, rows: Tensor, widths: dict[int, int]) -> bool:
    """Whether the kernels take a call on these rows, whose `widths` (each with the most it may be) must be
    multiples of 8. Where they do not, says once why torch's form is used instead."""
    reason = unavailable()
    if reason is None and rows.dtype not in TYPES:
        reason = f"{rows.dtype} is not among {', '.join(str(known) for known in TYPES)}"
    if reason is None and any(width % 8 or width > most for width, most in widths.items()):
        reason = f"the widths {list(widths)} are not multiples of 8 up to {list(widths.values())}"
    if reason is not None:
        _say_once(f"{operator}: {reason}; using torch's form, which is slower")
    return reason is None and rows.numel() > 0


@lru_cache(maxsize=64)
def _say_once(words: str) -> None:
    logging.getLogger("spair.kernels").warning(words)


@lru_cache(maxsize=256)
def _function(file: str, kernel: str) -> Any:
    import cupy

    module = cupy.RawModule(code=source(file), options=("-std=c++17",), name_expressions=(kernel,))
    return module.get_function(kernel)


Argument = Tensor | int | float | None


def launch(
    file: str, kernel: str, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Argument
) -> None:
    """Queue a kernel of `FILE.cu` on torch's current stream; integers and floats are passed as 32 bits."""
    import cupy

    tensor = next(argument for argument in arguments if isinstance(argument, Tensor))
    with torch.cuda.device(tensor.device), cupy.cuda.Device(tensor.device.index):
        stream = cupy.cuda.Stream.from_external(torch.cuda.current_stream(tensor.device))
        with stream:
            _function(file, kernel)(grid, block, tuple(_passed(argument) for argument in arguments))


def _passed(argument: Argument) -> Any:
    if isinstance(argument, Tensor):
        return np.uint64(argument.data_ptr())
    if argument is None:
        return np.uint64(0)
    return np.int32(argument) if isinstance(argument, int) else np.float32(argument)


def compact(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of the degraded cells of `mask` [N, H, W], sorted by the neighbours they have and then
    ascending; of the clean cells, ascending; and how many degraded cells are in each of the four groups.
    """
    cells, (height, width) = mask.numel(), mask.shape[1:]
    blocks = -(-cells // CELLS)
    counts = torch.empty(blocks, dtype=torch.int32, device=mask.device)
    launch("index", "count_cells", (blocks,), (CELLS,), mask, cells, counts)
    ends = counts.cumsum(0, dtype=torch.int32)
    n = int(ends[-1])
    active, clean = (torch.empty(size, dtype=torch.int64, device=mask.device) for size in (n, cells - n))
    orders = torch.empty(n, dtype=torch.int32, device=mask.device)
    launch(
        "index", "compact_cells", (blocks,), (CELLS,),
        mask, cells, height, width, ends - counts, active, clean, orders,
    )  # fmt: skip
    orders, permutation = orders.sort(stable=True)
    return active[permutation], clean, torch.bincount(orders >> 9, minlength=4)


def neighbours(mask: Tensor, active: Tensor) -> Tensor:
    """The table [n, 9], int32, of the degraded cells `active` of `mask` [N, H, W]."""
    n, (height, width) = active.numel(), mask.shape[1:]
    numbers = torch.empty(mask.numel(), dtype=torch.int32, device=mask.device)
    table = torch.empty(n, 9, dtype=torch.int32, device=mask.device)
    if n:
        blocks = (-(-n // THREADS),)
        launch("index", "number_cells", blocks, (THREADS,), active, n, numbers)
        launch("index", "neighbour_table", blocks, (THREADS,), mask, height, width, active, n, numbers, table)
    return table


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
    kernel = f"sc_product<{TYPES[rows.dtype]}, {growth // 8}, true>"
    for weight, bias in zip(weights, biases, strict=True):
        width = weight.shape[1]
        launch(
            "sc", kernel, (-(-n // ROWS), 1), (PRODUCT_THREADS,),
            buffer, total, width, neighbours, n, _by_tap(weight), width, growth, bias.contiguous(),
            buffer[:, width:], None, total,
        )  # fmt: skip
    return torch.addmm(out_bias, buffer, out_weight.t()), buffer


def sc_block_backward(
    grad: Tensor, buffer: Tensor, neighbours: Tensor, weights: Sequence[Tensor], out_weight: Tensor
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor]:
    """Gradients of rows, weights, biases, out_weight and out_bias; summed over the layers in float32."""
    (n, total), kind = buffer.shape, TYPES[buffer.dtype]
    grad_buffer = (grad @ out_weight).float()
    grad_weights, grad_biases = [], []
    for weight in reversed(weights):
        growth, width = weight.shape[:2]
        outputs = slice(width, width + growth)
        through = (
            torch.where(buffer[:, outputs] > 0, grad_buffer[:, outputs], 0).to(buffer.dtype).contiguous()
        )
        launch(
            "sc", f"sc_product<{kind}, {CHANNELS // 8}, false>", (-(-n // ROWS), -(-width // CHANNELS)),
            (PRODUCT_THREADS,), through, growth, growth, neighbours, n, _by_tap(weight), width, growth, None,
            None, grad_buffer, total,
        )  # fmt: skip
        splits = min(-(-n // STRETCH), MAX_SPLITS)
        partial = grad_buffer.new_empty(splits, 9, width, growth)
        launch(
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
    both = [grad.contiguous()]
    _along_lines(
        "snl_query_grad",
        lines.query_tiles,
        queries,
        keys,
        blend,
        both,
        lines,
        scale,
        [query_slots, shares, logs],
    )
    _along_lines(
        "snl_key_grad", lines.key_tiles, queries, keys, blend, both, lines, scale, [shares, logs, key_slots]
    )
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
    launch(
        "snl", f"{kernel}<{TYPES[queries.dtype]}, {channels}>", (tiles.shape[0], TILE // (16 * warps)),
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


def sfm(features: Tensor, mask: Tensor, eps: float, max_ratio: float, fade: float) -> tuple[Tensor, Tensor]:
    """Features N x C x H x W -> modulated, and the statistics [6, N, C] that backward needs."""
    features, mask = _channels_last(features), mask.contiguous()
    pictures, channels, height, width = features.shape
    count, kind = height * width, TYPES[features.dtype]
    stretches, groups = -(-count // SFM_STRETCH), -(-channels // SFM_BLOCK[0])
    partial = torch.empty(pictures, stretches, 2, channels, 3, device=features.device)
    launch(
        "sfm", f"sfm_moments<{kind}>", (stretches, groups, pictures), SFM_BLOCK,
        features, mask, count, channels, SFM_STRETCH, partial,
    )  # fmt: skip
    statistics = torch.empty(6, pictures, channels, device=features.device)
    affine = torch.empty(2, pictures, channels, device=features.device)
    launch(
        "sfm", "sfm_statistics", (groups, pictures), SFM_BLOCK,
        partial, stretches, pictures, channels, float(eps), float(max_ratio), float(fade), statistics, affine,
    )  # fmt: skip
    out = torch.empty_like(features)
    launch(
        "sfm", f"sfm_apply<{kind}>", (_blocks(features),), (THREADS,),
        features, mask, affine, pictures, count, channels, out,
    )  # fmt: skip
    return out, statistics


def sfm_backward(grad: Tensor, features: Tensor, mask: Tensor, statistics: Tensor, fade: float) -> Tensor:
    """The gradient of the features; that through a clamped ratio is zero."""
    features, grad, mask = _channels_last(features), _channels_last(grad), mask.contiguous()
    pictures, channels, height, width = features.shape
    count, kind = height * width, TYPES[features.dtype]
    stretches, groups = -(-count // SFM_STRETCH), -(-channels // SFM_BLOCK[0])
    partial = torch.empty(pictures, stretches, 2, channels, device=features.device)
    launch(
        "sfm", f"sfm_grad_sums<{kind}>", (stretches, groups, pictures), SFM_BLOCK,
        features, grad, mask, count, channels, SFM_STRETCH, partial,
    )  # fmt: skip
    degraded = mask.flatten(1).sum(1, dtype=torch.float32)
    counts = torch.stack([degraded, count - degraded], 1)
    coefficients = torch.empty(5, pictures, channels, device=features.device)
    launch(
        "sfm", "sfm_grad_coefficients", (groups, pictures), SFM_BLOCK,
        partial, stretches, pictures, channels, statistics, counts, float(fade), coefficients,
    )  # fmt: skip
    out = torch.empty_like(features)
    launch(
        "sfm", f"sfm_grad_apply<{kind}>", (_blocks(features),), (THREADS,),
        features, grad, mask, coefficients, pictures, count, channels, out,
    )  # fmt: skip
    return out


def _blocks(values: Tensor) -> int:
    return min(-(-values.numel() // THREADS), 8192)


def _channels_last(features: Tensor) -> Tensor:
    return features.contiguous(memory_format=torch.channels_last)


def _by_tap(weight: Tensor) -> Tensor:
    """[G, C, 3, 3] -> [9, C, G]."""
    return weight.permute(2, 3, 1, 0).reshape(9, weight.shape[1], -1).contiguous()
