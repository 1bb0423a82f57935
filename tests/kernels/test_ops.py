"""The fast forms against the plain reference in float64: values, gradients, edge cases, refusals."""

import math

import pytest
import torch

from kernels import build_index, index, reference, sc_block, sfm, snl_step

C, G, LAYERS, OUT = 5, 3, 3, 4


def rows_of(features):
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def random_mask(n, h, w, density, seed=0):
    return torch.rand(n, 1, h, w, generator=torch.Generator().manual_seed(seed)) < density


def one_pixel():
    mask = torch.zeros(1, 1, 6, 5, dtype=torch.bool)
    mask[0, 0, 2, 3] = True
    return mask


def mixed_batch():
    return torch.cat(
        [random_mask(1, 6, 7, 0.4), torch.zeros(1, 1, 6, 7).bool(), torch.ones(1, 1, 6, 7).bool()]
    )


def one_full_one_empty():
    return torch.stack([torch.ones(1, 6, 7).bool(), torch.zeros(1, 6, 7).bool()])


def half_plane():
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    mask[..., :3] = True  # nothing clean to the left, and nothing above or below
    return mask


MASKS = {
    "empty": torch.zeros(2, 1, 5, 6, dtype=torch.bool),
    "full": torch.ones(1, 1, 5, 6, dtype=torch.bool),
    "one pixel": one_pixel(),
    "one row": random_mask(1, 1, 17, 0.5),
    "one column": random_mask(1, 13, 1, 0.5),
    "odd": random_mask(2, 9, 7, 0.3),
    "dense form": random_mask(1, 9, 7, 0.9),
    "mixed batch": mixed_batch(),
    "no line with both": one_full_one_empty(),
    "no clean direction": half_plane(),
}


@pytest.fixture(params=MASKS, ids=str)
def mask(request):
    return MASKS[request.param]


def features_for(mask, seed=1):
    torch.manual_seed(seed)
    n, _, h, w = mask.shape
    return torch.randn(n, C, h, w, dtype=torch.float64)


def block_parameters():
    torch.manual_seed(2)

    def make(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    weights = [make(G, C + i * G, 3, 3) for i in range(LAYERS)]
    return weights, [make(G) for _ in range(LAYERS)], make(OUT, C + LAYERS * G), make(OUT)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


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


@pytest.mark.parametrize("guards", [(math.inf, 0.0), (1.1, 16.0)], ids=["by the letter", "guarded"])
def test_sfm_is_the_reference(mask, guards):
    max_ratio, fade = guards
    features = features_for(mask)
    a, b = (features.clone().requires_grad_() for _ in range(2))
    expected = reference.sfm(a, mask, eps=1e-3, max_ratio=max_ratio, fade=fade)
    got = sfm(b, mask, eps=1e-3, max_ratio=max_ratio, fade=fade)
    close(got, expected)
    upstream = torch.randn_like(expected)
    close(
        torch.autograd.grad((got * upstream).sum(), b)[0],
        torch.autograd.grad((expected * upstream).sum(), a)[0],
    )


def test_sfm_by_hand():
    features = torch.tensor([1.0, 3.0, 10.0, 30.0], dtype=torch.float64).view(1, 1, 2, 2)
    mask = torch.tensor([True, True, False, False]).view(1, 1, 2, 2)
    got = sfm(features, mask, eps=1e-12, max_ratio=math.inf, fade=0.0)
    # Degraded: mean 2, deviation 1. Clean: mean 20, deviation 10.
    close(got.flatten(), torch.tensor([10.0, 30.0, 10.0, 30.0], dtype=torch.float64))


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
