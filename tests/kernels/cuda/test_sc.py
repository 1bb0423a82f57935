"""SC's kernels against the reference: emulated in several thread orders, and natively."""

import pytest
import torch

from kernels import build_index, cuda
from tests.kernels.cuda.dense import check, dense_block
from tests.kernels.cuda.pictures import MASKS, block_parameters, made_features
from tests.kernels.samples import rows_of


@pytest.mark.parametrize(("channels", "growth", "layers"), [(8, 8, 2), (72, 24, 1)])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_sc_and_its_gradients(mask, channels, growth, layers, dtype, device):
    mask = mask.to(device)
    features = made_features(mask, channels, dtype)
    parameters = block_parameters(channels, growth, layers, dtype, device)
    upstream = made_features(mask, 16, dtype, seed=3)
    exact = dense_block(features, mask, parameters, upstream, torch.float64)
    plain = dense_block(features, mask, parameters, upstream, dtype)

    made = build_index(mask, non_local=False)
    rows = rows_of(features)[made.active]
    out, buffer = cuda.sc.sc_block(rows, made.neighbours, *parameters)
    weights, _, out_weight, _ = parameters
    grad = rows_of(upstream)[made.active]
    grads = cuda.sc.sc_block_backward(grad, buffer, made.neighbours, weights, out_weight)
    got = [out, grads[0], *grads[1], *grads[2], grads[3], grads[4]]
    for number, (mine, theirs, torchs) in enumerate(zip(got, exact, plain, strict=True)):
        at_cells = number < 2
        theirs, torchs = (
            (rows_of(theirs)[made.active], rows_of(torchs)[made.active]) if at_cells else (theirs, torchs)
        )
        assert mine.dtype == dtype
        check(mine, theirs, torchs, dtype)
