"""SNL's form for CPUs against the plain reference in float64: values, gradients, edge cases."""

import pytest
import torch

from kernels import build_index, index, reference, snl_step
from tests.kernels.samples import MASKS, close, features_for, half_plane, random_mask, rows_of


@pytest.mark.parametrize("size", [1.0, 20.0], ids=["alike", "far apart"])
def test_snl_step_is_the_reference(mask, size):
    """Far apart: one direction's scores may be nothing beside the other's, and yet be normalised."""
    features, made = size * features_for(mask), build_index(mask)
    dense = features.clone().requires_grad_()
    blend = torch.randn(mask.shape[0], 4, *mask.shape[2:], dtype=torch.float64, requires_grad=True)
    expected = reference.snl_step(dense, mask, blend, 0.7)
    upstream = torch.randn_like(expected)
    loss = (expected * upstream).sum() + 0 * dense.sum() + 0 * blend.sum()
    expected_grads = torch.autograd.grad(loss, [dense, blend])

    inputs = [
        rows_of(features)[made.active],
        rows_of(features)[made.clean],
        rows_of(blend.detach())[made.active],
    ]
    inputs = [value.clone().requires_grad_() for value in inputs]
    got = snl_step(*inputs, made, 0.7)
    close(got, rows_of(expected)[made.active])
    grads = torch.autograd.grad((got * rows_of(upstream)[made.active]).sum(), inputs)
    close(grads[0], rows_of(expected_grads[0])[made.active])
    close(grads[1], rows_of(expected_grads[0])[made.clean])
    close(grads[2], rows_of(expected_grads[1])[made.active])


def test_an_empty_direction_adds_exactly_zero():
    mask = half_plane()
    made, features = build_index(mask), features_for(mask)
    blend = torch.tensor([1.0, 0, 1, 1], dtype=torch.float64).expand(made.active.numel(), 4)
    got = snl_step(rows_of(features)[made.active], rows_of(features)[made.clean], blend, made, 1.0)
    assert (got == 0).all()


def test_chunking_changes_nothing(monkeypatch):
    mask = MASKS["odd"]
    features = features_for(mask)
    blend = torch.rand(int(mask.sum()), 4, dtype=torch.float64)

    def run():
        made = build_index(mask)
        return snl_step(rows_of(features)[made.active], rows_of(features)[made.clean], blend, made, 1.0)

    whole = run()
    monkeypatch.setattr(index, "CHUNK_SCORES", 8)
    close(run(), whole)


def test_the_same_input_gives_the_same_bits():
    mask = random_mask(2, 33, 31, 0.3)
    made = build_index(mask)
    features = features_for(mask).float()
    keys = rows_of(features)[made.clean]
    blend = torch.rand(made.active.numel(), 4)
    runs = []
    for _ in range(2):
        rows = rows_of(features)[made.active].requires_grad_()
        out = snl_step(rows, keys, blend, made, 1.0)
        runs.append((out, torch.autograd.grad(out.square().sum(), rows)[0]))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_is_as_good_as_its_rounding(dtype):
    mask = MASKS["odd"]
    made, features = build_index(mask), 6 * features_for(mask)  # scores far beyond what exp takes
    blend = torch.rand(made.active.numel(), 4, dtype=torch.float64)
    inputs = [rows_of(features)[made.active], rows_of(features)[made.clean], blend]
    low = [value.to(dtype).requires_grad_() for value in inputs]
    exact = [value.detach().double().requires_grad_() for value in low]
    results = []
    for leaves in (low, exact):
        out = snl_step(*leaves, made, 0.4)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for mine, theirs in zip(*results, strict=True):
        assert mine.dtype == dtype
        error = (mine.detach().double() - theirs.detach()).norm() / theirs.detach().norm()
        assert float(error) < 8 * torch.finfo(dtype).eps
