"""The operators in plain torch, one line of mathematics a line of code: the definition of correct.

Slow and differentiable by autograd. `features` are N x C x H x W, `mask` bool N x 1 x H x W with
True = degraded. The fast forms in `cpu` and on GPUs are tested against these in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def sc_block(
    features: Tensor,
    mask: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    out_weight: Tensor,
    out_bias: Tensor,
) -> Tensor:
    """Densely connected submanifold convolutions (eq. 2) and a 1x1; zero where the mask is False."""
    seen = features * mask
    for weight, bias in zip(weights, biases, strict=True):
        seen = torch.cat([seen, F.relu(F.conv2d(seen, weight, bias, padding=1)) * mask], dim=1)
    return F.conv2d(seen, out_weight[:, :, None, None], out_bias) * mask


def snl_step(features: Tensor, mask: Tensor, blend: Tensor, scale: float) -> Tensor:
    """One step of SNL (eq. 3-5): each degraded cell gathers from the clean ones of four directions.

    `blend` N x 4 x H x W: the weights of left, right, up and down. Zero at clean cells.
    """
    gathered = torch.zeros_like(features)
    pictures, _, height, width = features.shape
    for picture in range(pictures):
        for y, x in mask[picture, 0].nonzero().tolist():
            row, column = features[picture, :, y], features[picture, :, :, x]
            clean_row, clean_column = ~mask[picture, 0, y], ~mask[picture, 0, :, x]
            directions = (
                row[:, :x][:, clean_row[:x]],
                row[:, x + 1 :][:, clean_row[x + 1 :]],
                column[:, :y][:, clean_column[:y]],
                column[:, y + 1 :][:, clean_column[y + 1 :]],
            )
            query = features[picture, :, y, x]
            total = torch.zeros_like(query)
            for weight, keys in zip(blend[picture, :, y, x], directions, strict=True):
                if keys.shape[1]:
                    total = total + weight * (keys @ torch.softmax(scale * (query @ keys), dim=0))
            at = F.one_hot(torch.tensor(y * width + x), height * width).view(height, width)
            gathered = gathered + F.one_hot(torch.tensor(picture), pictures).view(-1, 1, 1, 1) * (
                total.view(1, -1, 1, 1) * at
            )
    return gathered


def sfm(features: Tensor, mask: Tensor, *, eps: float, max_ratio: float, fade: float) -> Tensor:
    """Spatial feature modulation (eq. 1), a picture and a channel at a time, with its guards."""
    pictures = []
    for feature, marked in zip(features, mask[:, 0], strict=True):
        degraded, clean = feature[:, marked], feature[:, ~marked]
        n1, n0 = degraded.shape[1], clean.shape[1]
        if n1 == 0 or n0 == 0:
            pictures.append(feature)
            continue
        mu1, mu0 = degraded.mean(1), clean.mean(1)
        sigma1 = (degraded.var(1, correction=0) + eps).sqrt()
        sigma0 = (clean.var(1, correction=0) + eps).sqrt()
        ratio = (sigma0 / sigma1).clamp(1 / max_ratio, max_ratio)
        weight = n1 / (n1 + fade) * n0 / (n0 + fade)
        moved = ratio[:, None, None] * (feature - mu1[:, None, None]) + mu0[:, None, None]
        pictures.append(feature + marked.to(feature) * weight * (moved - feature))
    return torch.stack(pictures)
