"""SC's form for CPUs against the plain reference in float64: values and gradients."""

import pytest
import torch

from kernels import build_index, index, reference, sc_block
from tests.kernels.samples import block_parameters, close, features_for, rows_of


@pytest.mark.parametrize("band_cells", [6, index.BAND_CELLS], ids=["bands", "one band"])
def test_sc_block_is_the_reference(mask, band_cells, monkeypatch):
    monkeypatch.setattr(index, "BAND_CELLS", band_cells)
    features, made = features_for(mask), build_index(mask)
    weights, biases, out_weight, out_bias = block_parameters()
    parameters = [*weights, *biases, out_weight, out_bias]
    dense = features.clone().requires_grad_()
    expected = reference.sc_block(dense, mask, weights, biases, out_weight, out_bias)
    upstream = torch.randn_like(expected)
    expected_grads = torch.autograd.grad((expected * upstream).sum(), [dense, *parameters])

    rows = rows_of(features)[made.active].requires_grad_()
    got = sc_block(rows, made, weights, biases, out_weight, out_bias)
    close(got, rows_of(expected)[made.active])
    grads = torch.autograd.grad((got * rows_of(upstream)[made.active]).sum(), [rows, *parameters])
    close(grads[0], rows_of(expected_grads[0])[made.active])
    for mine, theirs in zip(grads[1:], expected_grads[1:], strict=True):
        close(mine, theirs)
