"""SC's form for CPUs against the plain reference in float64: values and gradients."""

import pytest
import torch

from kernels import build_index, index, reference, sc_block
from kernels.cpu import precision
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


def test_what_low_precision_multiplies_beyond_a_bands_rows_does_not_matter(mask, monkeypatch):
    monkeypatch.setattr(index, "BAND_CELLS", 6)
    features, made = features_for(mask), build_index(mask)
    weights, biases, out_weight, out_bias = block_parameters()
    leaves = [rows_of(features)[made.active], *weights, *biases, out_weight, out_bias]
    leaves = [value.detach().bfloat16().requires_grad_() for value in leaves]
    results = []
    for steps in (precision.STEPS, (1, 1)):
        monkeypatch.setattr(precision, "STEPS", steps)
        rows, *layers, out_w, out_b = leaves
        half = len(layers) // 2
        out = sc_block(rows, made, layers[:half], layers[half:], out_w, out_b)
        results.append([out, *torch.autograd.grad(out.sum(), leaves)])
    for evened, exact in zip(*results, strict=True):
        assert evened.dtype == torch.bfloat16
        assert evened.isfinite().all()
        error = (evened.double() - exact.double()).detach().norm()
        assert float(error) <= torch.finfo(torch.bfloat16).eps * float(exact.detach().double().norm())
