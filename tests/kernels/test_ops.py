"""The operators as callers meet them: autograd, torch.compile, autocast, strides, refusals."""

import pytest
import torch

from kernels import build_index, sc_block, sfm, snl_step
from tests.kernels.samples import MASKS, block_parameters, close, features_for, rows_of


@pytest.mark.long
def test_gradcheck_and_opcheck():
    mask = MASKS["odd"][:1, :, :5, :5]
    made, features = build_index(mask), features_for(mask)
    weights, biases, out_weight, out_bias = block_parameters()
    rows = rows_of(features)[made.active].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda r, w, o: sc_block(r, made, [w, *weights[1:]], biases, o, out_bias),
        (rows, weights[0], out_weight),
    )
    keys = rows_of(features)[made.clean].requires_grad_()
    blend = torch.rand(rows.shape[0], 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, k, b: snl_step(q, k, b, made, 0.5), (rows, keys, blend))
    dense = features.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: sfm(f, mask, eps=1e-3, max_ratio=4.0, fade=2.0), (dense,))

    tables = (made.active, made.neighbours, made.bands, list(made.shape))
    torch.library.opcheck(torch.ops.spair.sc_block, (rows, *tables, weights, biases, out_weight, out_bias))
    lines = list(made.lines)
    torch.library.opcheck(torch.ops.spair.snl_step, (rows, keys, blend, lines, 0.5))
    torch.library.opcheck(
        torch.ops.spair.sfm, (dense.contiguous(memory_format=torch.channels_last), mask, 1e-3, 4.0, 2.0)
    )


def test_they_compile_into_one_graph():
    mask = MASKS["odd"]
    made, features = build_index(mask), features_for(mask)
    weights, biases, out_weight, out_bias = block_parameters()
    rows, keys = rows_of(features)[made.active], rows_of(features)[made.clean]
    blend = torch.rand(rows.shape[0], 4, dtype=torch.float64)

    def forward(features, rows):
        moved = sfm(features, mask, eps=1e-3, max_ratio=4.0, fade=16.0)
        return moved.sum() + snl_step(
            rows + sc_block(rows, made, weights, biases, out_weight, out_bias)[:, :1], keys, blend, made, 1.0
        )

    compiled = torch.compile(forward, fullgraph=True, backend="aot_eager")
    close(compiled(features, rows), forward(features, rows))


def test_under_autocast_sc_and_snl_run_in_its_type():
    mask = MASKS["odd"]
    made, features = build_index(mask), features_for(mask).float()
    weights, biases, out_weight, out_bias = (
        [w.float() for w in value] if isinstance(value, list) else value.float()
        for value in block_parameters()
    )
    rows, keys = rows_of(features)[made.active], rows_of(features)[made.clean]
    blend = torch.rand(rows.shape[0], 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert sc_block(rows, made, weights, biases, out_weight, out_bias).dtype == torch.bfloat16
        assert snl_step(rows, keys, blend, made, 0.4).dtype == torch.bfloat16
        low = features.bfloat16().requires_grad_()
        moved = [sfm(value, mask, eps=1e-3, max_ratio=4.0, fade=16.0) for value in (features, low)]
        assert [value.dtype for value in moved] == [torch.float32, torch.bfloat16]
        assert torch.autograd.grad(moved[1].sum(), low)[0].isfinite().all()


def test_any_strides_are_taken():
    mask = MASKS["odd"]
    made, features = build_index(mask), features_for(mask)
    rows, keys = rows_of(features)[made.active], rows_of(features)[made.clean]
    parameters, blend = block_parameters(), torch.rand(rows.shape[0], 4, dtype=torch.float64)

    def strided(value):
        return value.t().contiguous().t()

    close(sc_block(strided(rows), made, *parameters), sc_block(rows, made, *parameters))
    close(
        snl_step(strided(rows), strided(keys), strided(blend), made, 1.0),
        snl_step(rows, keys, blend, made, 1.0),
    )
    guards = {"eps": 1e-3, "max_ratio": 4.0, "fade": 16.0}
    crop = torch.nn.functional.pad(features, (1, 2, 3, 1))[:, :, 3:-1, 1:-2]
    close(sfm(crop, mask, **guards), sfm(features, mask, **guards))


def test_arguments_that_do_not_fit_are_refused():
    mask = MASKS["odd"]
    made, features = build_index(mask), features_for(mask)
    rows, keys = rows_of(features)[made.active], rows_of(features)[made.clean]
    weights, biases, out_weight, out_bias = block_parameters()
    with pytest.raises(ValueError, match="rows must be"):
        sc_block(rows[1:], made, weights, biases, out_weight, out_bias)
    with pytest.raises(TypeError, match="floating point"):
        sc_block(rows.long(), made, weights, biases, out_weight, out_bias)
    with pytest.raises(TypeError, match="float32"):
        sc_block(rows.float(), made, weights, biases, out_weight, out_bias)
    with pytest.raises(ValueError, match=r"weights\[1\]"):
        sc_block(rows, made, [weights[0], weights[0], weights[2]], biases, out_weight, out_bias)
    with pytest.raises(ValueError, match="blend"):
        snl_step(rows, keys, torch.rand(rows.shape[0], 3, dtype=torch.float64), made, 1.0)
    bare = build_index(mask, non_local=False)
    with pytest.raises(ValueError, match="line tables"):
        snl_step(rows, keys, torch.rand(rows.shape[0], 4, dtype=torch.float64), bare, 1.0)
    with pytest.raises(ValueError, match="mask must be bool"):
        sfm(features, mask.float(), eps=1e-3, max_ratio=4.0, fade=0.0)
    with pytest.raises(ValueError, match="max_ratio"):
        sfm(features, mask, eps=1e-3, max_ratio=0.5, fade=0.0)
