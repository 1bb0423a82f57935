"""SC's kernels against the reference: emulated in several thread orders, and natively."""

import pytest
import torch

from kernels import build_index, cuda
from tests.kernels.cuda.dense import check, dense_block, gated_gradients
from tests.kernels.cuda.pictures import MASKS, block_parameters, made_features
from tests.kernels.samples import rows_of


@pytest.mark.parametrize(("channels", "growth", "layers"), [(8, 8, 2), (72, 24, 1)])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_sc_and_its_gradients(mask, channels, growth, layers, dtype, device):
    mask = mask.to(device)
    features = made_features(mask, channels, dtype)
    parameters = block_parameters(channels, growth, layers, dtype, device)
    upstream = made_features(mask, 16, dtype, seed=3)
    made = build_index(mask, non_local=False)
    out, buffer = cuda.sc.sc_block(rows_of(features)[made.active], made.neighbours, *parameters)
    weights, _, out_weight, _ = parameters
    grad = rows_of(upstream)[made.active]
    grads = cuda.sc.sc_block_backward(grad, buffer, made.neighbours, weights, out_weight)
    got = [out, grads[0], *grads[1], *grads[2], grads[3], grads[4]]

    def told(kind):
        """Of the output and the gradients, those at cells as rows."""
        first = dense_block(features, mask, parameters, upstream, kind)[0]
        rest = gated_gradients(features, mask, parameters, upstream, kind, buffer, made.active)
        return [rows_of(first)[made.active], rows_of(rest[0])[made.active], *rest[1:]]

    for mine, theirs, torchs in zip(got, told(torch.float64), told(dtype), strict=True):
        assert mine.dtype == dtype
        check(mine, theirs, torchs, dtype)
