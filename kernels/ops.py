"""The operators as callers see them: checked arguments, torch custom operators, autograd.

A whole SC block, one SNL step and one SFM are one custom operator each (`spair::...`), forward and
backward, opaque to torch.compile. On a GPU the kernels of `cuda` serve them; where those cannot (no
CuPy, another type, odd widths) the forms of `cpu` do, which are plain torch, and a line in the log says
so. Under autocast SC and SNL run in its type, SFM in that of its features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from kernels import cpu, cuda
from kernels.tables import ActiveIndex, LineTables


def sc_block(
    rows: Tensor,
    index: ActiveIndex,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    out_weight: Tensor,
    out_bias: Tensor,
) -> Tensor:
    """SC (eq. 2): L densely connected submanifold 3x3 convolutions with ReLU, then a 1x1.

    `rows` [n, C] are the features at `index.active`; `weights` L of [G, C + i*G, 3, 3], `biases` L of
    [G], `out_weight` [C_out, C + L*G], `out_bias` [C_out]. Gives [n, C_out]; adding it back is the
    caller's. Raises ValueError or TypeError for arguments that do not fit one another.
    """
    rows, out_weight, out_bias = _autocast(rows, out_weight, out_bias)
    weights, biases = _autocast(*weights), _autocast(*biases)
    _check_rows("rows", rows, index.active.numel(), index)
    width = rows.shape[1]
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        growth = weight.shape[0]
        _check_shape(f"weights[{number}]", weight, (weights[0].shape[0], width, 3, 3), rows)
        _check_shape(f"biases[{number}]", bias, (growth,), rows)
        width += growth
    _check_shape("out_weight", out_weight, (out_weight.shape[0], width), rows)
    _check_shape("out_bias", out_bias, (out_weight.shape[0],), rows)
    tables = (index.active, index.neighbours, index.bands, list(index.shape))
    with _as_they_are(rows):
        operator = _shortest(_sc_block, _sc_block_itself)
        return operator(rows, *tables, list(weights), list(biases), out_weight, out_bias)[0]


def snl_step(queries: Tensor, keys: Tensor, blend: Tensor, index: ActiveIndex, scale: float) -> Tensor:
    """One step of SNL (eq. 3-5): degraded cells gather from the clean ones left, right, up and down.

    `queries` [n, C] at `index.active`, `keys` [m, C] at `index.clean`, `blend` [n, 4] the weights
    e_k(p); `scale` multiplies the dot products (1 by the letter). Gives [n, C]; a direction without
    clean pixels adds exactly zero. Raises ValueError or TypeError for arguments that do not fit.
    """
    queries, keys, blend = _autocast(queries, keys, blend)
    _check_rows("queries", queries, index.active.numel(), index)
    _check_rows("keys", keys, index.clean.numel(), index)
    _check_shape("keys", keys, (keys.shape[0], queries.shape[1]), queries)
    _check_shape("blend", blend, (queries.shape[0], 4), queries)
    if index.lines is None:
        raise ValueError("the index has no line tables: build it with build_index(mask, non_local=True)")
    with _as_they_are(queries):
        return _shortest(_snl_step, _snl_step_itself)(queries, keys, blend, list(index.lines), scale)


def sfm(features: Tensor, mask: Tensor, *, eps: float, max_ratio: float, fade: float) -> Tensor:
    """SFM (eq. 1): degraded cells take on the statistics of the clean ones, a picture and channel.

    `features` N x C x H x W, `mask` bool N x 1 x H x W. The ratio of deviations is clamped to
    [1/max_ratio, max_ratio] (inf: by the letter); the correction is multiplied by
    n1/(n1+fade) * n0/(n0+fade) for n1 degraded and n0 clean cells (0: by the letter). A picture
    without degraded or without clean cells stays as it is. Raises ValueError or TypeError.
    """
    if features.ndim != 4 or not features.is_floating_point():
        raise TypeError(
            f"features must be floating point N x C x H x W, not {features.dtype} {list(features.shape)}"
        )
    n, _, height, width = features.shape
    if mask.dtype != torch.bool or mask.shape != (n, 1, height, width) or mask.device != features.device:
        raise ValueError(
            f"the mask must be bool {[n, 1, height, width]} on {features.device}, "
            f"not {mask.dtype} {list(mask.shape)} on {mask.device}"
        )
    if eps <= 0 or max_ratio < 1 or fade < 0:
        raise ValueError(
            f"eps {eps} must be positive, max_ratio {max_ratio} at least 1, fade {fade} not negative"
        )
    with _as_they_are(features):
        return _shortest(_sfm, _sfm_itself)(features, mask, eps, min(max_ratio, 1e30), fade)[0]


def _shortest(operator: Any, itself: Any) -> Any:
    """In inference what an operator does is called as it is: on torch's way to it the compiler is imported,
    which takes a second of a process that may have one picture to restore."""
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        return operator
    return itself


def _as_they_are(tensor: Tensor) -> torch.autocast:
    """Inside an operator the types are chosen: autocast must not change a product's."""
    return torch.autocast(tensor.device.type, enabled=False)


def _autocast(*tensors: Tensor) -> list[Tensor]:
    if not tensors or not torch.is_autocast_enabled(tensors[0].device.type):
        return list(tensors)
    dtype = torch.get_autocast_dtype(tensors[0].device.type)
    return [tensor.to(dtype) for tensor in tensors]


def _check_rows(name: str, rows: Tensor, count: int, index: ActiveIndex) -> None:
    if rows.ndim != 2 or rows.shape[0] != count:
        raise ValueError(f"{name} must be [{count}, C] to fit the index, not {list(rows.shape)}")
    if not rows.is_floating_point():
        raise TypeError(f"{name} must be floating point, not {rows.dtype}")
    if rows.device != index.active.device:
        raise ValueError(f"{name} is on {rows.device}, the index on {index.active.device}")


def _check_shape(name: str, value: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} must be {list(shape)}, not {list(value.shape)}")
    if value.dtype != like.dtype or value.device != like.device:
        raise TypeError(
            f"{name} is {value.dtype} on {value.device}, the rows are {like.dtype} on {like.device}"
        )


def _sc_block_itself(
    rows: Tensor,
    active: Tensor,
    neighbours: Tensor,
    bands: Tensor,
    shape: Sequence[int],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    out_weight: Tensor,
    out_bias: Tensor,
) -> tuple[Tensor, Tensor]:
    if neighbours.shape[0] == rows.shape[0]:
        if _sc_is_served(rows, weights):
            return cuda.sc.sc_block(rows, neighbours, weights, biases, out_weight, out_bias)
        return cpu.sc.sc_block(rows, neighbours, bands, weights, biases, out_weight, out_bias)
    return cpu.sc.dense_sc_block(rows, active, _triple(shape), weights, biases, out_weight, out_bias)


def _sc_is_served(rows: Tensor, weights: Sequence[Tensor]) -> bool:
    growth, channels = weights[0].shape[:2]
    return rows.is_cuda and cuda.device.serves("SC", rows, {channels: channels, growth: cuda.sc.MAX_GROWTH})


def _snl_form(queries: Tensor) -> ModuleType:
    served = queries.is_cuda and cuda.device.serves("SNL", queries, {queries.shape[1]: cuda.snl.MAX_CHANNELS})
    return cuda.snl if served else cpu.snl


def _sfm_form(features: Tensor) -> ModuleType:
    return cuda.sfm if features.is_cuda and cuda.device.serves("SFM", features, {}) else cpu.sfm


_sc_block = torch.library.custom_op("spair::sc_block", mutates_args=())(_sc_block_itself)


@_sc_block.register_fake
def _(
    rows: Tensor,
    active: Tensor,
    neighbours: Tensor,
    bands: Tensor,
    shape: Sequence[int],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    out_weight: Tensor,
    out_bias: Tensor,
) -> tuple[Tensor, Tensor]:
    cells = rows.shape[0] if neighbours.shape[0] == rows.shape[0] else math.prod(shape)
    return rows.new_empty(rows.shape[0], out_weight.shape[0]), rows.new_empty(cells, out_weight.shape[1])


@torch.library.custom_op("spair::sc_block_backward", mutates_args=())
def _sc_block_backward(
    grad: Tensor,
    buffer: Tensor,
    active: Tensor,
    neighbours: Tensor,
    bands: Tensor,
    shape: Sequence[int],
    weights: Sequence[Tensor],
    out_weight: Tensor,
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor]:
    if neighbours.shape[0] == grad.shape[0]:
        if _sc_is_served(grad, weights):
            return cuda.sc.sc_block_backward(grad, buffer, neighbours, weights, out_weight)
        return cpu.sc.sc_block_backward(grad, buffer, neighbours, bands, weights, out_weight)
    return cpu.sc.dense_sc_block_backward(grad, buffer, active, _triple(shape), weights, out_weight)


@_sc_block_backward.register_fake
def _(
    grad: Tensor,
    buffer: Tensor,
    active: Tensor,
    neighbours: Tensor,
    bands: Tensor,
    shape: Sequence[int],
    weights: Sequence[Tensor],
    out_weight: Tensor,
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor]:
    return (
        grad.new_empty(grad.shape[0], weights[0].shape[1]),
        [torch.empty_like(weight) for weight in weights],
        [weight.new_empty(weight.shape[0]) for weight in weights],
        torch.empty_like(out_weight),
        out_weight.new_empty(out_weight.shape[0]),
    )


def _sc_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, active, neighbours, bands, shape, weights, _, out_weight, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.shape = shape
    ctx.save_for_backward(output[1], active, neighbours, bands, out_weight, *weights)


def _sc_backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    buffer, active, neighbours, bands, out_weight, *weights = ctx.saved_tensors
    with _as_they_are(grad):
        grads = _sc_block_backward(grad, buffer, active, neighbours, bands, ctx.shape, weights, out_weight)
    rows, layer_weights, biases, out_w, out_b = grads
    return rows, None, None, None, None, layer_weights, biases, out_w, out_b


_sc_block.register_autograd(_sc_backward, setup_context=_sc_setup)


def _snl_step_itself(
    queries: Tensor, keys: Tensor, blend: Tensor, lines: Sequence[Tensor], scale: float
) -> Tensor:
    out: Tensor = _snl_form(queries).snl_step(queries, keys, blend, LineTables(*lines), scale)
    return out


_snl_step = torch.library.custom_op("spair::snl_step", mutates_args=())(_snl_step_itself)


@_snl_step.register_fake
def _(queries: Tensor, keys: Tensor, blend: Tensor, lines: Sequence[Tensor], scale: float) -> Tensor:
    return queries.new_empty(queries.shape)


@torch.library.custom_op("spair::snl_step_backward", mutates_args=())
def _snl_step_backward(
    grad: Tensor, queries: Tensor, keys: Tensor, blend: Tensor, lines: Sequence[Tensor], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    form, tables = _snl_form(queries), LineTables(*lines)
    grads: tuple[Tensor, Tensor, Tensor] = form.snl_step_backward(grad, queries, keys, blend, tables, scale)
    return grads


@_snl_step_backward.register_fake
def _(
    grad: Tensor, queries: Tensor, keys: Tensor, blend: Tensor, lines: Sequence[Tensor], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return queries.new_empty(queries.shape), keys.new_empty(keys.shape), blend.new_empty(blend.shape)


def _snl_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    queries, keys, blend, lines, ctx.scale = inputs
    ctx.save_for_backward(queries, keys, blend, *lines)


def _snl_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    queries, keys, blend, *lines = ctx.saved_tensors
    with _as_they_are(grad):
        grads = _snl_step_backward(grad, queries, keys, blend, lines, ctx.scale)
    return *grads, [None] * len(lines), None


_snl_step.register_autograd(_snl_backward, setup_context=_snl_setup)


def _sfm_itself(
    features: Tensor, mask: Tensor, eps: float, max_ratio: float, fade: float
) -> tuple[Tensor, Tensor]:
    out, statistics = _sfm_form(features).sfm(features, mask, eps, max_ratio, fade)
    return out.contiguous(memory_format=torch.channels_last), statistics


_sfm = torch.library.custom_op("spair::sfm", mutates_args=())(_sfm_itself)


@_sfm.register_fake
def _(features: Tensor, mask: Tensor, eps: float, max_ratio: float, fade: float) -> tuple[Tensor, Tensor]:
    dtype = torch.float32 if features.dtype in (torch.float16, torch.bfloat16) else features.dtype
    statistics = features.new_empty(6, features.shape[0], features.shape[1], dtype=dtype)
    return torch.empty_like(features, memory_format=torch.channels_last), statistics


@torch.library.custom_op("spair::sfm_backward", mutates_args=())
def _sfm_backward(grad: Tensor, features: Tensor, mask: Tensor, statistics: Tensor, fade: float) -> Tensor:
    out: Tensor = _sfm_form(features).sfm_backward(grad, features, mask, statistics, fade)
    return out.contiguous(memory_format=torch.channels_last)


@_sfm_backward.register_fake
def _(grad: Tensor, features: Tensor, mask: Tensor, statistics: Tensor, fade: float) -> Tensor:
    return torch.empty_like(grad, memory_format=torch.channels_last)


def _sfm_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, mask, _, _, ctx.fade = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(features, mask, output[1])


def _sfm_grad(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    features, mask, statistics = ctx.saved_tensors
    with _as_they_are(grad):
        return _sfm_backward(grad, features, mask, statistics, ctx.fade), None, None, None, None


_sfm.register_autograd(_sfm_grad, setup_context=_sfm_setup)


def _triple(shape: Sequence[int]) -> tuple[int, int, int]:
    pictures, height, width = shape
    return pictures, height, width
