"""What the CUDA kernels are compared with: the operators over all cells, differentiated by torch."""

import torch

from kernels import reference
from tests.kernels.samples import rows_of


def relative_error(got, exact):
    got, exact = got.detach().double(), exact.detach()
    return float((got - exact).norm() / exact.norm().clamp(min=1e-9))


def check(got, exact, plain, dtype):
    """Close to float64: in float32 to rounding, in low precision at most twice torch's own error."""
    least = 5e-6 if dtype == torch.float32 else 1e-3
    error, torchs = relative_error(got, exact), relative_error(plain, exact)
    assert error <= max(2 * torchs, least)


def dense_block(features, mask, parameters, upstream, dtype):
    """Output at the degraded cells and all gradients, by the reference in this type."""
    leaves = [value.to(dtype).requires_grad_() for value in (features, *flat(parameters))]
    out = reference.sc_block(leaves[0], mask, *unflat(leaves[1:]))
    grads = torch.autograd.grad((out * upstream.to(dtype)).sum(), leaves)
    return [out.detach(), *grads]


def gated_gradients(features, mask, parameters, upstream, dtype, buffer, active):
    """All gradients, by the definition in this type, with those units on that are so in the block's `buffer`:
    next to zero rounding decides, and a unit that it turns is no error of the backward pass."""
    leaves = [value.to(dtype).requires_grad_() for value in (features, *flat(parameters))]
    seen, (weights, biases, out_weight, out_bias) = leaves[0] * mask, unflat(leaves[1:])
    cells = torch.zeros(mask.numel(), buffer.shape[1], dtype=dtype, device=mask.device)
    cells[active] = (buffer > 0).to(dtype)
    gates = cells.view(mask.shape[0], *mask.shape[2:], -1).permute(0, 3, 1, 2)
    for weight, bias in zip(weights, biases, strict=True):
        gate = gates[:, seen.shape[1] : seen.shape[1] + len(bias)]
        layer = torch.nn.functional.conv2d(seen, weight, bias, padding=1)
        seen = torch.cat([seen, layer * gate], dim=1)
    out = torch.nn.functional.conv2d(seen, out_weight[:, :, None, None], out_bias) * mask
    return torch.autograd.grad((out * upstream.to(dtype)).sum(), leaves)


def flat(parameters):
    weights, biases, out_weight, out_bias = parameters
    return [*weights, *biases, out_weight, out_bias]


def unflat(values):
    layers = (len(values) - 2) // 2
    return values[:layers], values[layers : 2 * layers], values[-2], values[-1]


def dense_attention(features, mask, blend, upstream, made, dtype):
    """Gathered rows and the gradients of queries, keys and blend: every cell with every cell of its line."""
    leaves = [value.to(dtype).requires_grad_() for value in (features, features, blend)]
    queries, keys, weights = (leaf.permute(0, 2, 3, 1) for leaf in leaves)
    clean, out = ~mask[:, 0], 0
    for axis in (0, 1):
        if axis:
            queries, keys, weights = (value.transpose(1, 2) for value in (queries, keys, weights))
            clean, out = clean.transpose(1, 2), out.transpose(1, 2)
        scores = 0.4 * queries @ keys.transpose(2, 3)
        for side, ones in enumerate((torch.ones_like(scores).tril(-1), torch.ones_like(scores).triu(1))):
            counted = ones.bool() & clean[:, :, None]
            shares = scores.masked_fill(~counted, -30000.0).softmax(3) * counted.any(3, keepdim=True)
            out = out + weights[..., 2 * axis + side, None] * (shares @ keys)
    out = out.transpose(1, 2) * mask.permute(0, 2, 3, 1)
    grads = torch.autograd.grad((out * upstream.to(dtype).permute(0, 2, 3, 1)).sum(), leaves)
    results = [out.detach().flatten(0, 2), *(rows_of(grad) for grad in grads)]
    return [results[0][made.active], results[1][made.active], results[2][made.clean], results[3][made.active]]
