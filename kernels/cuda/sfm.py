"""SFM on the GPU, forward and backward: launches of `sfm.cu`."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.cuda import device

BLOCK = (32, 8)  # channels x cells at a time, as in sfm.cu
STRETCH = 1024  # cells that a block sums up


def sfm(features: Tensor, mask: Tensor, eps: float, max_ratio: float, fade: float) -> tuple[Tensor, Tensor]:
    """Features N x C x H x W -> modulated, and the statistics [6, N, C] that backward needs."""
    features, mask = _channels_last(features), mask.contiguous()
    pictures, channels, height, width = features.shape
    count, kind = height * width, device.TYPES[features.dtype]
    stretches, groups = -(-count // STRETCH), -(-channels // BLOCK[0])
    partial = torch.empty(pictures, stretches, 2, channels, 3, device=features.device)
    device.launch(
        "sfm", f"sfm_moments<{kind}>", (stretches, groups, pictures), BLOCK,
        features, mask, count, channels, STRETCH, partial,
    )  # fmt: skip
    statistics = torch.empty(6, pictures, channels, device=features.device)
    affine = torch.empty(2, pictures, channels, device=features.device)
    device.launch(
        "sfm", "sfm_statistics", (groups, pictures), BLOCK,
        partial, stretches, pictures, channels, float(eps), float(max_ratio), float(fade), statistics, affine,
    )  # fmt: skip
    out = torch.empty_like(features)
    device.launch(
        "sfm", f"sfm_apply<{kind}>", (_blocks(features),), (device.THREADS,),
        features, mask, affine, pictures, count, channels, out,
    )  # fmt: skip
    return out, statistics


def sfm_backward(grad: Tensor, features: Tensor, mask: Tensor, statistics: Tensor, fade: float) -> Tensor:
    """The gradient of the features; that through a clamped ratio is zero."""
    features, grad, mask = _channels_last(features), _channels_last(grad), mask.contiguous()
    pictures, channels, height, width = features.shape
    count, kind = height * width, device.TYPES[features.dtype]
    stretches, groups = -(-count // STRETCH), -(-channels // BLOCK[0])
    partial = torch.empty(pictures, stretches, 2, channels, device=features.device)
    device.launch(
        "sfm", f"sfm_grad_sums<{kind}>", (stretches, groups, pictures), BLOCK,
        features, grad, mask, count, channels, STRETCH, partial,
    )  # fmt: skip
    degraded = mask.flatten(1).sum(1, dtype=torch.float32)
    counts = torch.stack([degraded, count - degraded], 1)
    coefficients = torch.empty(5, pictures, channels, device=features.device)
    device.launch(
        "sfm", "sfm_grad_coefficients", (groups, pictures), BLOCK,
        partial, stretches, pictures, channels, statistics, counts, float(fade), coefficients,
    )  # fmt: skip
    out = torch.empty_like(features)
    device.launch(
        "sfm", f"sfm_grad_apply<{kind}>", (_blocks(features),), (device.THREADS,),
        features, grad, mask, coefficients, pictures, count, channels, out,
    )  # fmt: skip
    return out


def _blocks(values: Tensor) -> int:
    return min(-(-values.numel() // device.THREADS), 8192)


def _channels_last(features: Tensor) -> Tensor:
    return features.contiguous(memory_format=torch.channels_last)
