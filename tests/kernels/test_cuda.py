"""The CUDA kernels, executed on the CPU by an emulation in several thread orders, against the reference."""

import faulthandler
import multiprocessing
import os

import pytest
import torch

from kernels import build_index, cpu, cuda, index, reference
from tests.kernels.emulator import Emulator, streaks

ORDERS = {"forward": 0, "backward": 1, "random": 7}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MASKS = {
    "streaks": streaks(2, 19, 23, 0.25),
    "one pixel": torch.zeros(1, 1, 6, 5).index_fill_(3, torch.tensor(3), 1).bool() & torch.eye(6, 5).bool(),
    "noise": torch.rand(1, 1, 13, 40, generator=torch.Generator().manual_seed(0)) < 0.5,
    "half": torch.arange(40).expand(1, 1, 9, 40) < 20,
}


@pytest.fixture(params=ORDERS.values(), ids=ORDERS)
def ordered(request, emulator):
    emulator.order = request.param
    return emulator


@pytest.fixture(params=DTYPES.values(), ids=DTYPES)
def dtype(request):
    return request.param


def rows_of(features):
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def made_features(mask, channels, dtype, seed=1):
    generator = torch.Generator().manual_seed(seed)
    n, _, height, width = mask.shape
    return torch.randn(n, channels, height, width, generator=generator).to(dtype)


def relative_error(got, exact):
    got, exact = got.detach().double(), exact.detach()
    return float((got - exact).norm() / exact.norm().clamp(min=1e-9))


def check(got, exact, plain, dtype):
    """Close to float64: in float32 to rounding, in low precision at most twice torch's own error."""
    least = 5e-6 if dtype == torch.float32 else 1e-3
    assert relative_error(got, exact) <= max(2 * relative_error(plain, exact), least)


def block_parameters(channels, growth, layers, dtype):
    generator = torch.Generator().manual_seed(2)

    def make(*shape):
        return (torch.randn(*shape, generator=generator) / 4).to(dtype)

    weights = [make(growth, channels + i * growth, 3, 3) for i in range(layers)]
    return weights, [make(growth) for _ in range(layers)], make(16, channels + layers * growth), make(16)


def dense_block(features, mask, parameters, upstream, dtype):
    """Output at the degraded cells and all gradients, by the reference in this type."""
    leaves = [value.to(dtype).requires_grad_() for value in (features, *flat(parameters))]
    out = reference.sc_block(leaves[0], mask, *unflat(leaves[1:]))
    grads = torch.autograd.grad((out * upstream.to(dtype)).sum(), leaves)
    return [out.detach(), *grads]


def flat(parameters):
    weights, biases, out_weight, out_bias = parameters
    return [*weights, *biases, out_weight, out_bias]


def unflat(values):
    layers = (len(values) - 2) // 2
    return values[:layers], values[layers : 2 * layers], values[-2], values[-1]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_the_index_is_the_one_of_torch(mask, ordered, monkeypatch):
    made = build_index(mask)
    monkeypatch.setattr(index, "_on_kernels", lambda _: False)
    plain = build_index(mask)
    n = made.active.numel()
    assert torch.equal(made.clean, plain.clean)
    assert torch.equal(made.active.sort()[0], plain.active.sort()[0])
    assert torch.equal(made.spans, plain.spans)
    assert made.neighbours.dtype == torch.int32
    where = torch.cat([made.active, torch.tensor([-1])])[made.neighbours.long()]
    expected = torch.cat([plain.active, torch.tensor([-1])])[plain.neighbours]
    assert torch.equal(where[made.active.argsort()], expected[plain.active.argsort()])
    # Cells with the same neighbours stand together.
    taps = (made.neighbours < n).int() @ (1 << torch.arange(9, dtype=torch.int32))
    assert int((taps[1:] != taps[:-1]).sum()) + 1 == taps.unique().numel()


@pytest.mark.parametrize(("channels", "growth", "layers"), [(8, 8, 2), (72, 24, 1)])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_sc_and_its_gradients(mask, channels, growth, layers, dtype, ordered):
    features = made_features(mask, channels, dtype)
    parameters = block_parameters(channels, growth, layers, dtype)
    upstream = made_features(mask, 16, dtype, seed=3)
    exact = dense_block(features, mask, parameters, upstream, torch.float64)
    plain = dense_block(features, mask, parameters, upstream, dtype)

    made = build_index(mask, non_local=False)
    rows = rows_of(features)[made.active]
    out, buffer = cuda.sc_block(rows, made.neighbours, *parameters)
    weights, _, out_weight, _ = parameters
    grad = rows_of(upstream)[made.active]
    grads = cuda.sc_block_backward(grad, buffer, made.neighbours, weights, out_weight)
    got = [out, grads[0], *grads[1], *grads[2], grads[3], grads[4]]
    for number, (mine, theirs, torchs) in enumerate(zip(got, exact, plain, strict=True)):
        at_cells = number < 2
        theirs, torchs = (
            (rows_of(theirs)[made.active], rows_of(torchs)[made.active]) if at_cells else (theirs, torchs)
        )
        assert mine.dtype == dtype
        check(mine, theirs, torchs, dtype)


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


@pytest.mark.parametrize("channels", [8, 72, 256])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_snl_and_its_gradients(mask, channels, dtype, ordered):
    if channels == 256 and (dtype != torch.float32 or ordered.order):
        pytest.skip("wide rows differ from others by their tiles alone, which float32 shows")
    features = made_features(mask, channels, dtype)
    blend, upstream = made_features(mask, 4, dtype, seed=2), made_features(mask, channels, dtype, seed=3)
    made = build_index(mask)
    exact = dense_attention(features, mask, blend, upstream, made, torch.float64)
    plain = dense_attention(features, mask, blend, upstream, made, dtype)
    cells = rows_of(features)
    inputs = [cells[made.active], cells[made.clean], rows_of(blend)[made.active]]
    got = [cuda.snl_step(*inputs, made.lines, 0.4)]
    got += cuda.snl_step_backward(rows_of(upstream)[made.active], *inputs, made.lines, 0.4)
    for mine, theirs, torchs in zip(got, exact, plain, strict=True):
        check(mine, theirs, torchs, dtype)
    assert torch.equal(got[0] == 0, exact[0] == 0)  # an empty direction adds exactly nothing


@pytest.mark.parametrize("mask", [*MASKS.values(), torch.zeros(1, 1, 4, 5).bool()], ids=[*MASKS, "empty"])
def test_sfm_and_its_gradient(mask, dtype, ordered):
    features = (3 * made_features(mask, 40, torch.float32) + 20).to(dtype)
    upstream = made_features(mask, 40, dtype, seed=3)
    guards = (1e-3, 1.3, 4.0)
    exact, statistics = cpu.sfm(features.double(), mask, *guards)
    exact_grad = cpu.sfm_backward(upstream.double(), features.double(), mask, statistics, 4.0)
    plain, plain_statistics = cpu.sfm(features, mask, *guards)
    plain_grad = cpu.sfm_backward(upstream, features, mask, plain_statistics, 4.0)
    out, mine = cuda.sfm(features, mask, *guards)
    check(out, exact, plain, dtype)
    check(cuda.sfm_backward(upstream, features, mask, mine, 4.0), exact_grad, plain_grad, dtype)


def run_everything(emulator: Emulator, dtype: torch.dtype) -> list[torch.Tensor]:
    """One call of every kernel on a mask; all results."""
    mask = MASKS["streaks"]
    made = build_index(mask)
    features, blend = made_features(mask, 8, dtype), made_features(mask, 4, dtype, seed=2)
    parameters = block_parameters(8, 8, 2, dtype)
    cells = rows_of(features)
    queries, keys, weights = cells[made.active], cells[made.clean], rows_of(blend)[made.active]
    out, buffer = cuda.sc_block(queries, made.neighbours, *parameters)
    grads = cuda.sc_block_backward(out, buffer, made.neighbours, parameters[0], parameters[2])
    results = [out, grads[0], *grads[1], *grads[2]]
    results += [cuda.snl_step(queries, keys, weights, made.lines, 0.4)]
    results += cuda.snl_step_backward(queries, queries, keys, weights, made.lines, 0.4)
    moved, statistics = cuda.sfm(features, mask, 1e-3, 4.0, 4.0)
    return [*results, moved, cuda.sfm_backward(moved, features, mask, statistics, 4.0)]


def test_every_order_of_threads_gives_the_same_bits(emulator, dtype):
    runs = []
    for order in (0, 1, 5, 6):
        emulator.order = order
        runs.append(run_everything(emulator, dtype))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


MUTATIONS = {
    "index: the block's count read too early": (
        "index",
        "__popc(marked);\n  __syncthreads();",
        "__popc(marked);",
    ),
    "index: ranks read too early": ("index", "__popc(among);\n  __syncthreads();", "__popc(among);"),
    "sc: products before the rows have come": ("sc", "wait_for_copies<1>();\n    __syncthreads();", ""),
    "sc: rows replaced while in use": (
        "sc",
        "WEIGHT_STRIDE, DEPTH);\n    __syncthreads();",
        "WEIGHT_STRIDE, DEPTH);",
    ),
    "sc: taps counted too early": (
        "sc",
        "present[tap] = 1;\n  }\n  __syncthreads();",
        "present[tap] = 1;\n  }",
    ),
    "snl: shares read before all are written": ("snl", "__syncwarp();", ""),
    "snl: keys read before they have come": ("snl", "wait_for_copies<0>();\n      __syncthreads();", ""),
    "sfm: moments merged too early": ("sfm", "mine[kind];\n  __syncthreads();", "mine[kind];"),
    "sfm: sums merged too early": ("sfm", "= along;\n  __syncthreads();", "= along;"),
}


@pytest.mark.parametrize(("file", "old", "new"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_missing_barrier_is_seen(file, old, new, emulator):
    """Negative controls: without them, nothing says that the tests above could fail."""
    expected = run_everything(emulator, torch.float32)
    emulator.mutation = (file, old, new)
    emulator.library(file)

    def differs() -> None:
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            got = run_everything(emulator, torch.float32)
        except (AssertionError, RuntimeError, IndexError, ValueError):
            os._exit(1)  # threads at different barriers, or tables that do not fit
        os._exit(int(not all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))))

    codes = []
    for emulator.order in ORDERS.values():
        # In a process of its own: a wrong table may well be written out of bounds.
        process = multiprocessing.get_context("fork").Process(target=differs)
        process.start()
        process.join()
        codes.append(process.exitcode)
    assert any(codes)
