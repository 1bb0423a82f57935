"""The CUDA kernels against the reference: emulated on the CPU in several thread orders, and natively."""

import faulthandler
import multiprocessing
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from kernels import build_index, cpu, cuda, index, reference, sc_block, sfm, snl_step
from tests.kernels.everything import MASKS, block_parameters, made_features, rows_of, run_everything

ROOT = Path(__file__).parents[2]
ORDERS = {"forward": 0, "backward": 1, "random": 7}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.fixture(params=[*ORDERS.values(), pytest.param(None, marks=pytest.mark.gpu)], ids=[*ORDERS, "native"])
def device(request):
    """Where the kernels run: on the CPU with that order of threads, or on a GPU."""
    if request.param is None:
        return request.getfixturevalue("gpu")
    request.getfixturevalue("emulator").order = request.param
    return "cpu"


@pytest.fixture(params=DTYPES.values(), ids=DTYPES)
def dtype(request):
    return request.param


def relative_error(got, exact):
    got, exact = got.detach().double(), exact.detach()
    return float((got - exact).norm() / exact.norm().clamp(min=1e-9))


def check(got, exact, plain, dtype):
    """Close to float64: in float32 to rounding, in low precision at most twice torch's own error."""
    least = 5e-6 if dtype == torch.float32 else 1e-3
    assert relative_error(got, exact) <= max(2 * relative_error(plain, exact), least)


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
def test_the_index_is_the_one_of_torch(mask, device, monkeypatch):
    mask = mask.to(device)
    made = build_index(mask)
    monkeypatch.setattr(index, "_on_kernels", lambda _: False)
    plain = build_index(mask)
    n = made.active.numel()
    assert torch.equal(made.clean, plain.clean)
    assert torch.equal(made.active.sort()[0], plain.active.sort()[0])
    assert torch.equal(made.bands, plain.bands.sum(0, keepdim=True))
    assert made.neighbours.dtype == torch.int32
    where = F.pad(made.active, (0, 1), value=-1)[made.neighbours.long()]
    expected = F.pad(plain.active, (0, 1), value=-1)[plain.neighbours]
    assert torch.equal(where[made.active.argsort()], expected[plain.active.argsort()])
    # Cells with the same neighbours stand together.
    taps = (made.neighbours < n).cpu().int() @ (1 << torch.arange(9, dtype=torch.int32))
    assert int((taps[1:] != taps[:-1]).sum()) + 1 == taps.unique().numel()


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


@pytest.mark.parametrize("channels", [8, 72])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_snl_and_its_gradients(mask, channels, dtype, device):
    check_snl(mask.to(device), channels, dtype)


def test_snl_of_wide_rows(device):
    check_snl(MASKS["streaks"].to(device), 256, torch.float32)


def check_snl(mask, channels, dtype):
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
def test_sfm_and_its_gradient(mask, dtype, device):
    mask = mask.to(device)
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


def same_bits(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_every_order_of_threads_gives_the_same_bits(emulator, dtype):
    runs = []
    for order in (0, 1, 5, 6):
        emulator.order = order
        runs.append(run_everything(dtype))
    assert all(same_bits(runs[0], other) for other in runs[1:])


@pytest.mark.gpu
def test_every_run_gives_the_same_bits(gpu, dtype):
    first = run_everything(dtype, gpu)
    assert all(same_bits(first, run_everything(dtype, gpu)) for _ in range(5))


@pytest.mark.gpu
def test_the_operators_can_be_captured_in_a_graph(gpu):
    mask = MASKS["noise"].to(gpu)
    made = build_index(mask)
    features = made_features(mask, 16, torch.bfloat16).requires_grad_()
    parameters = block_parameters(16, 8, 2, torch.bfloat16, gpu)
    blend = made_features(mask, 4, torch.bfloat16)

    def step():
        moved = sfm(features, mask, eps=1e-3, max_ratio=4.0, fade=4.0)
        cells = rows_of(moved)
        queries = cells[made.active] + sc_block(cells[made.active], made, *parameters)
        out = snl_step(queries, cells[made.clean], rows_of(blend)[made.active], made, 0.3)
        return out, torch.autograd.grad(out.square().sum(), features)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        features.mul_(0.5)
    graph.replay()
    assert same_bits(captured, step())


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
    expected = run_everything(torch.float32)
    emulator.mutation = (file, old, new)
    emulator.library(file)

    def differs() -> None:
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            got = run_everything(torch.float32)
        except (AssertionError, RuntimeError, IndexError, ValueError):
            os._exit(1)  # threads at different barriers, or tables that do not fit
        os._exit(int(not same_bits(expected, got)))

    codes = []
    for emulator.order in ORDERS.values():
        # In a process of its own: a wrong table may well be written out of bounds.
        process = multiprocessing.get_context("fork").Process(target=differs)
        process.start()
        process.join()
        codes.append(process.exitcode)
    assert any(codes)


def sanitized(folder, *mutation):
    """The emulation with the address sanitizer compiled in, in a process of its own."""
    library = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    # Python keeps memory until it ends, and torch's objects are no concern of ours: leaks are not looked for.
    environment = os.environ | {"LD_PRELOAD": library.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, "-m", "tests.kernels.everything", "emulated", str(folder), *mutation]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


def test_no_kernel_leaves_its_memory(emulator_folder):
    done = sanitized(emulator_folder)
    assert done.returncode == 0, done.stderr
    assert "every kernel ran" in done.stdout


OVERRUNS = {
    "sc: rows beyond the last": ("sc", "if (row >= n) continue;", ""),
    "snl: keys beyond the tile": ("snl", "there ? size_t(numbers[at]) * C : 0", "size_t(numbers[at]) * C"),
    "sfm: channels beyond the last": (
        "sfm",
        "if (threadIdx.y < 2 && channel < channels)",
        "if (threadIdx.y < 2)",
    ),
    "index: cells beyond the last": ("index", "if (row >= n) return;", ""),
}


@pytest.mark.parametrize("mutation", OVERRUNS.values(), ids=OVERRUNS)
def test_an_overrun_is_seen(mutation, emulator_folder):
    """Negative controls of the test above."""
    done = sanitized(emulator_folder, *mutation)
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck"])
def test_compute_sanitizer_has_nothing_to_say(tool, gpu):
    if not shutil.which("compute-sanitizer"):
        pytest.skip("compute-sanitizer (of the CUDA toolkit) is not on the PATH")
    # Without torch's pool every tensor is an allocation of its own, whose end is seen.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "3"]
    command += [sys.executable, "-m", "tests.kernels.everything", gpu]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.fixture
def said(caplog):
    """The words of the log; what was said once before is said again."""
    cuda._say_once.cache_clear()
    return lambda: [record.getMessage() for record in caplog.records if record.name == "spair.kernels"]


def test_without_cupy_the_torch_form_is_taken_and_the_log_says_why(monkeypatch, said):
    monkeypatch.setitem(sys.modules, "cupy", None)
    cuda.unavailable.cache_clear()
    for _ in range(2):
        assert not cuda.serves("SC", torch.zeros(4, 8), {8: 64})
    cuda.unavailable.cache_clear()
    assert said() == [
        "SC: CuPy is not installed (pip install cupy-cuda13x); using torch's form, which is slower"
    ]


class OldStream:
    """What torch before 2.10 and CuPy before 14 have: no way to share one."""


@pytest.mark.parametrize("older", ["torch", "CuPy"])
def test_versions_that_cannot_share_a_stream_are_told(older, monkeypatch):
    fake = types.SimpleNamespace(cuda=types.SimpleNamespace(Stream=OldStream))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if older == "torch":
        monkeypatch.setattr(torch.cuda, "Stream", OldStream)
    assert cuda.unavailable.__wrapped__().startswith(f"{older} is older than")


@pytest.mark.parametrize(
    ("dtype", "width", "words"),
    [
        (torch.float64, 8, "torch.float64 is not among torch.float16, torch.bfloat16, torch.float32"),
        (torch.float32, 12, "the widths [12] are not multiples of 8 up to [64]"),
        (torch.float32, 72, "the widths [72] are not multiples of 8 up to [64]"),
    ],
)
def test_what_the_kernels_do_not_take_is_told(dtype, width, words, monkeypatch, said):
    monkeypatch.setattr(cuda, "unavailable", lambda: None)
    assert cuda.serves("SNL", torch.zeros(4, 8), {8: 64})
    assert not cuda.serves("SNL", torch.zeros(4, width, dtype=dtype), {width: 64})
    assert said() == [f"SNL: {words}; using torch's form, which is slower"]


def test_the_torch_form_works_on_tables_for_the_kernels(emulator):
    """As on a GPU for odd widths: the index is for the kernels, the operators are torch's."""
    mask = MASKS["streaks"]
    tables = build_index(mask)
    assert tables.neighbours.dtype == torch.int32
    features = made_features(mask, 5, torch.float64).requires_grad_()
    parameters = block_parameters(5, 3, 2, torch.float64)
    got = sc_block(rows_of(features)[tables.active], tables, *parameters)
    exact = rows_of(reference.sc_block(features, mask, *parameters))[tables.active]
    assert torch.allclose(got, exact)
    both = [torch.autograd.grad(out.square().sum(), features)[0] for out in (got, exact)]
    assert torch.allclose(*both)

    blend = made_features(mask, 4, torch.float64)
    cells = rows_of(features.detach())
    inputs = [cells[tables.active], cells[tables.clean], rows_of(blend)[tables.active]]
    leaves = [value.requires_grad_() for value in inputs]
    gathered = snl_step(*leaves, tables, 0.4)
    upstream = made_features(mask, 5, torch.float64, seed=3)
    theirs = dense_attention(features.detach(), mask, blend, upstream, tables, torch.float64)
    mine = [gathered, *torch.autograd.grad(gathered, leaves, rows_of(upstream)[tables.active])]
    assert all(torch.allclose(a, b) for a, b in zip(mine, theirs, strict=True))
