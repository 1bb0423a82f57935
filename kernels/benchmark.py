"""How fast the operators and the network are here, beside their dense forms and the machine's own peaks.

    python -m kernels.benchmark [--device cpu|cuda] [--json FILE] [--markdown FILE]

Ours and the baselines take turns; a time is the median of several rounds after one to warm up. On a
CPU every scene has a process of its own, so that none inherits another's memory, and a turn is as many
calls as fill 50 ms. What memory costs is part of a time: large temporaries (of the row-masked attention,
of masked sums) come from the system anew at every call, as is usual, and may cost half of it. What is
prepared once a mask (our index, the fused attention's masks, spconv's pairs) is in no operator's
time; `index` states ours, of all four levels of a picture. The row-masked attention makes its masks in
the call. Taking rows out of a picture and putting them back is in the networks' rows only. A number
that could not be measured is null, and the reason goes to stderr.

`peak_share`: for SC and SNL the arithmetic that this mask needs (neighbours and pairs that exist), for
the networks that of spair_core.cost, a second, against a large square product; for `index` and `sfm`
the bytes that must move once, against a large copy (small pictures fit a cache and may pass 1).
`error`: ||ours - reference|| / ||reference|| of the forward result, in float64, up to 256 x 256. The
reference is kernels.reference for SC and SFM, `dense_snl` in float64 for SNL (kernels.reference walks
its pixels one by one) and the same network in float64. Null for `index`: its tables are right or
wrong, not near, and its tests say which.

Shape letters: N pictures, C channels, H x W cells; L lines of K cells, rows or columns.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import copy
import datetime
import functools
import importlib
import importlib.util
import json
import math
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import ActiveIndex, build_index, reference, sc_block, sfm, snl_step

PICTURES = {"cpu": 1, "cuda": 4}
"""Pictures in a batch."""
TURN = 0.05
"""Seconds that a form's turn on a CPU lasts at least."""
CHANNELS, GROWTH, LAYERS = 64, 32, 6
SNL_SCALE = CHANNELS**-0.5
SFM_GUARDS = {"eps": 1e-3, "max_ratio": 4.0, "fade": 16.0}
ERROR_CELLS = 1 << 16
"""Most cells of a picture that the slow float64 references are run on."""
FAILURES = (RuntimeError, FloatingPointError, AssertionError, KeyError)
"""How a form fails that runs out of memory or does not take a dtype (spconv: the last two)."""

Pass = Literal["forward", "both"]
Row = dict[str, str | int | float | None]


class Scene(NamedTuple):
    """What is run on what; `density` is the nominal share of degraded cells of a `mask` of that shape."""

    op: str
    height: int
    width: int
    channels: int
    density: float
    mask: str
    dtype: str


KEYS = (*Scene._fields, "pass", "ours_ms", "baseline", "baseline_ms", "ratio", "peak_share", "error")
"""Of a row: `ratio` is baseline_ms / ours_ms; the pass "both" is forward and backward."""


@dataclass(frozen=True)
class Form:
    """One way to compute something: `call` gives the result, `leaves` are what gradients are taken of."""

    call: Callable[[], Tensor]
    leaves: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Contest:
    """Ours and its baselines, by name.

    `work` of each pass to be timed: bytes where `bound` is "copy", else floating point operations.
    `exact` gives in float64 what `ours` should be.
    """

    ours: Form
    baselines: Mapping[str, Form]
    bound: Literal["gemm", "copy"]
    work: Mapping[Pass, float]
    exact: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class Ground:
    """The data of a scene: `mask` bool [N, 1, H, W], its index, features `x` [N, C, H, W] (channels last)."""

    mask: Tensor
    index: ActiveIndex
    x: Tensor

    @staticmethod
    def of(scene: Scene, device: str) -> Ground:
        """Draw it, always the same."""
        torch.manual_seed(0)
        size = scene.height, scene.width
        mask = draw_mask(scene.mask, PICTURES[device], *size, scene.density).to(device)
        x = torch.randn(PICTURES[device], scene.channels, *size, device=device)
        x = x.to(getattr(torch, scene.dtype), memory_format=torch.channels_last)
        return Ground(mask, build_index(mask), x.requires_grad_())

    def noise(self, *shape: int, share: float = 1.0) -> Tensor:
        """Normal noise, a leaf of the features' dtype."""
        return leaf((share * torch.randn(shape, device=self.x.device)).to(self.x.dtype))

    def active(self, pictures: Tensor) -> Tensor:
        """[N, *, H, W] -> the rows of the degraded cells [n, *]."""
        return rows_of(pictures)[self.index.active]


def leaf(value: Tensor) -> Tensor:
    """The same values, to take gradients of."""
    return value.detach().requires_grad_()


def rows_of(pictures: Tensor) -> Tensor:
    """[N, C, H, W] -> [N*H*W, C]."""
    return pictures.permute(0, 2, 3, 1).flatten(0, 2)


def scenes(device: str, *, quick: bool = False) -> Iterator[Scene]:
    """All that is run on a device by default; `quick` is one small scene of each operator."""
    cpu = device == "cpu"
    sizes = [(64, 64), (128, 128), (256, 256)] if cpu else [(256, 256), (360, 640)]
    light = [(256, 256), (512, 512)] if cpu else [(256, 256), (720, 1280)]
    full = light[:1] if cpu else light
    dtypes = ["float32"] if cpu else ["bfloat16", "float16", "float32"]
    masks = [("streak", density) for density in (0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9)]
    masks += [("blob", 0.1), ("random", 0.1)]
    densities = [0.0, 0.05, 0.1, 0.5]
    if quick:
        sizes = light = full = [(32, 32)]
        dtypes, masks, densities = dtypes[-1:], [("streak", 0.1)], [0.1]
    for dtype in dtypes:
        for op in ("index", "sc_block", "snl_step", "sfm"):
            for size in sizes:
                yield from (Scene(op, *size, CHANNELS, density, mask, dtype) for mask, density in masks)
        for op, network_sizes in (("network_light", light), ("network_full", full)):
            for size in network_sizes:
                yield from (Scene(op, *size, 3, density, "streak", dtype) for density in densities)


def draw_mask(shape: str, pictures: int, height: int, width: int, density: float) -> Tensor:
    """bool [pictures, 1, height, width], the same at every call.

    `shape`: "streak" (slanted, 10 to 40 pixels long, 1 to 3 wide; to within one streak of the
    density), "blob" (smooth noise above a threshold; exact) or "random" (pixel by pixel).
    """
    draw = {"streak": _streaks, "blob": _blobs, "random": _specks}[shape]
    random = torch.Generator().manual_seed(0)
    return torch.stack([draw(height, width, density, random) for _ in range(pictures)])[:, None]


def _streaks(height: int, width: int, density: float, random: torch.Generator) -> Tensor:
    mask, wanted = torch.zeros(height, width, dtype=torch.bool), density * height * width
    slope = torch.rand((), generator=random) - 0.5
    step, across = torch.arange(40)[:, None], torch.arange(3)
    while (missing := wanted - int(mask.sum())) > 0:
        count = max(int(missing) // (40 * 3), 1)  # as many as surely do not overshoot
        pick = functools.partial(torch.randint, size=(count, 1, 1), generator=random)
        y = (pick(-39, height) + step).expand(count, 40, 3)
        x = pick(-22, width + 20) + (slope * step).long() + across
        drawn = (step < pick(10, 41)) & (across < pick(1, 4))
        drawn &= (y >= 0) & (y < height) & (x >= 0) & (x < width)
        mask[y[drawn], x[drawn]] = True
    return mask


def _blobs(height: int, width: int, density: float, random: torch.Generator) -> Tensor:
    coarse = torch.randn(1, 1, height // 16 + 2, width // 16 + 2, generator=random)
    noise = F.interpolate(coarse, size=(height, width), mode="bicubic").flatten()
    highest = noise.topk(round(density * noise.numel())).indices
    return torch.zeros(noise.shape, dtype=torch.bool).index_fill_(0, highest, True).view(height, width)


def _specks(height: int, width: int, density: float, random: torch.Generator) -> Tensor:
    return torch.rand(height, width, generator=random) < density


def dense_sc(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """SC's layers and its 1x1 (the last weight and bias) as ordinary convolutions over all of `x`."""
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = torch.cat([x, F.conv2d(x, weight, bias, padding=1).relu_()], dim=1)
    return F.conv2d(x, weights[-1][:, :, None, None], biases[-1])


class Direction(NamedTuple):
    """What queries see on one side along one axis of L lines of K cells."""

    hidden: Tensor  # bool [N*L, K, K]: these scores do not count
    some: Tensor  # bool [N*L, K, 1]: whether any does; a query without one sees all cells, to be weighted 0


def directions(mask: Tensor, axis: int) -> tuple[Direction, Direction]:
    """Left and right (axis 0) or up and down (1), for a mask bool [N, 1, H, W]."""
    turned = mask.transpose(2, 3) if axis else mask
    # Contiguous, columns too: strided, they make the attention several times slower.
    clean = ~turned[:, 0].flatten(0, 1)[:, None].contiguous()
    square = clean.new_ones(clean.shape[2], clean.shape[2])
    seen = (clean & square.tril(-1), clean & square.triu(1))
    some = [side.any(2, keepdim=True) for side in seen]
    return Direction(~seen[0] & some[0], some[0]), Direction(~seen[1] & some[1], some[1])


Attention = Callable[[Tensor, Tensor, int], Tensor]
"""Cells [N*L, K, C] and the blend weights of an axis [N*L, K, 2] -> gathered [N*L, K, C]."""


def dense_snl(x: Tensor, blend: Tensor, attend: Attention) -> Tensor:
    """One step of SNL at every cell, clean ones included: whole lines of scores, then masked.

    `x` [N, C, H, W], `blend` [N, 4, H, W]; `attend` is `row_masked` or `fused` of the mask.
    """
    total = torch.zeros_like(x)
    for axis in (0, 1):
        turned, shares = (v.transpose(2, 3) if axis else v for v in (x, blend[:, 2 * axis : 2 * axis + 2]))
        cells, weights = (v.permute(0, 2, 3, 1).flatten(0, 1).contiguous() for v in (turned, shares))
        gathered = attend(cells, weights, axis).unflatten(0, turned.shape[::2]).permute(0, 3, 1, 2)
        total = total + (gathered.transpose(2, 3) if axis else gathered)
    return total


def row_masked(mask: Tensor) -> Attention:
    """As one would write it: batched products, and masks made from the mask at every call."""

    def attend(cells: Tensor, weights: Tensor, axis: int) -> Tensor:
        scores = torch.bmm(cells * SNL_SCALE, cells.transpose(1, 2))
        mixed = torch.zeros_like(scores)
        for side, (hidden, some) in enumerate(directions(mask, axis)):
            shares = scores.masked_fill(hidden, -math.inf).softmax(2)
            mixed = mixed + shares * (weights[..., side : side + 1] * some)
        return torch.bmm(mixed, cells)

    return attend


def fused(mask: Tensor, dtype: torch.dtype) -> Attention:
    """By torch's own attention; its masks are prepared once, as numbers to add, 0 or -inf."""
    prepared = [
        [
            (torch.zeros_like(hidden, dtype=dtype).masked_fill_(hidden, -math.inf)[:, None], some)
            for hidden, some in directions(mask, axis)
        ]
        for axis in (0, 1)
    ]

    def attend(cells: Tensor, weights: Tensor, axis: int) -> Tensor:
        heads, gathered = cells[:, None], torch.zeros_like(cells)
        for side, (bias, some) in enumerate(prepared[axis]):
            out = F.scaled_dot_product_attention(heads, heads, heads, bias, scale=SNL_SCALE)
            gathered = gathered + out.squeeze(1) * (weights[..., side : side + 1] * some)
        return gathered

    return attend


def eager_sfm(x: Tensor, mask: Tensor, *, eps: float, max_ratio: float, fade: float) -> Tensor:
    """SFM of a batch by sums over all cells times a mask. `x` [N, C, H, W], `mask` bool [N, 1, H, W]."""
    total = functools.partial(  # in float32 at least: counts overflow float16
        torch.sum, dim=(2, 3), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32)
    )
    statistics_of_set = []
    for share in (mask.to(x.dtype), (~mask).to(x.dtype)):
        count = total(share)
        mean = total(x * share) / count.clamp(min=1)
        variance = total((x - mean.to(x.dtype)).square() * share) / count.clamp(min=1)
        statistics_of_set.append((count, mean, (variance + eps).sqrt()))
    (n1, mu1, sigma1), (n0, mu0, sigma0) = statistics_of_set
    ratio = (sigma0 / sigma1).clamp(1 / max_ratio, max_ratio)
    weight = n1 / (n1 + fade) * n0 / (n0 + fade)
    gain, shift = (value.to(x.dtype) for value in (weight * (ratio - 1), weight * (mu0 - ratio * mu1)))
    return x + mask * (gain * x + shift)


def _spconv(ground: Ground) -> Form:
    """The SC block of spconv's layers, with weights of their own, its pairs found beforehand."""
    spconv: Any = importlib.import_module("spconv.pytorch")
    rows = leaf(ground.active(ground.x))
    widths = [CHANNELS + i * GROWTH for i in range(LAYERS + 1)]
    layers = [spconv.SubMConv2d(c, GROWTH, 3, padding=1, indice_key="mask") for c in widths[:-1]]
    block = nn.ModuleList([*layers, nn.Linear(widths[-1], CHANNELS)]).to(rows)
    places = ground.mask[:, 0].nonzero().int()  # ascending, so not row by row ours: only times are compared
    bare = spconv.SparseConvTensor(rows.detach(), places, list(ground.mask.shape[2:]), ground.mask.shape[0])
    paired = functools.cache(lambda: layers[0](bare))  # what a layer gives holds the pairs of its key

    def call() -> Tensor:
        seen = rows
        for layer in layers:
            seen = torch.cat([seen, layer(paired().replace_feature(seen)).features.relu()], dim=1)
        return block[-1](seen)

    return Form(call, [rows, *block.parameters()])


def _sc(ground: Ground) -> Contest:
    widths = [CHANNELS + i * GROWTH for i in range(LAYERS + 1)]
    weights = [ground.noise(GROWTH, c, 3, 3, share=(9 * c) ** -0.5) for c in widths[:-1]]
    weights.append(ground.noise(CHANNELS, widths[-1], share=widths[-1] ** -0.5))
    biases = [ground.noise(weight.shape[0], share=0.1) for weight in weights]
    rows, index = leaf(ground.active(ground.x)), ground.index
    last = [leaf(w.contiguous(memory_format=torch.channels_last)) if w.ndim == 4 else w for w in weights]

    def ours() -> Tensor:
        return sc_block(rows, index, weights[:-1], biases[:-1], weights[-1], biases[-1])

    def exact() -> Tensor:
        w, b = ([value.detach().double() for value in values] for values in (weights, biases))
        return ground.active(reference.sc_block(ground.x.double(), ground.mask, w[:-1], b[:-1], w[-1], b[-1]))

    dense = Form(lambda: dense_sc(ground.x, last, biases), [ground.x, *last, *biases])
    baselines = {"dense convolution, channels_last": dense}
    if ground.x.is_cuda and importlib.util.find_spec("spconv"):
        baselines["spconv SubMConv2d"] = _spconv(ground)
    window = torch.ones(1, 1, 3, 3, device=rows.device)
    neighbours = int(F.conv2d(ground.mask.float(), window, padding=1)[ground.mask].sum(dtype=torch.float64))
    taps = sum(weight.numel() // 9 for weight in weights[:-1])
    flops = 2 * (neighbours * taps + rows.shape[0] * weights[-1].numel())
    work: dict[Pass, float] = {"forward": flops, "both": 3 * flops}
    return Contest(Form(ours, [rows, *weights, *biases]), baselines, "gemm", work, exact)


def _snl(ground: Ground) -> Contest:
    x, index = ground.x, ground.index
    attends = {"row-masked": row_masked(ground.mask), "fused": fused(ground.mask, x.dtype)}
    blend = ground.noise(x.shape[0], 4, *x.shape[2:], share=0.5)
    queries, keys, weights = leaf(ground.active(x)), leaf(rows_of(x)[index.clean]), leaf(ground.active(blend))
    baselines = {
        f"dense attention, {name}": Form(functools.partial(dense_snl, x, blend, attend), [x, blend])
        for name, attend in attends.items()
    }
    pairs = 0
    for axis in (2, 3):
        marked = ground.mask.sum(axis)
        pairs += int((marked * (ground.mask.shape[axis] - marked)).sum())
    product = 2 * CHANNELS * pairs  # two of them forward, five more backward
    return Contest(
        Form(lambda: snl_step(queries, keys, weights, index, SNL_SCALE), [queries, keys, weights]),
        baselines,
        "gemm",
        {"forward": 2 * product, "both": 7 * product},
        lambda: ground.active(dense_snl(x.double(), blend.double(), attends["row-masked"])),
    )


def _sfm(ground: Ground) -> Contest:
    x, mask = ground.x, ground.mask
    size = x.numel() * x.element_size()
    return Contest(
        Form(lambda: sfm(x, mask, **SFM_GUARDS), [x]),
        {"eager torch, masked sums": Form(lambda: eager_sfm(x, mask, **SFM_GUARDS), [x])},
        "copy",
        # Forward reads and writes the features; backward reads them and a gradient and writes another.
        {"forward": 2 * size, "both": 5 * size},
        lambda: reference.sfm(x.double(), mask, **SFM_GUARDS),
    )


def _index(ground: Ground) -> Contest:
    model = _built("light", ground)
    pictures = torch.rand_like(ground.x[:, :3])
    made = model.indices(ground.mask)
    tables = [t for i in made for t in (i.mask, i.active, i.clean, i.neighbours, i.bands, *(i.lines or ()))]
    return Contest(
        Form(lambda: model.indices(ground.mask)[0].active),
        {"the forward pass it serves, of network_light": Form(lambda: model(pictures, ground.mask).restored)},
        "copy",
        {"forward": sum(table.numel() * table.element_size() for table in tables)},
    )


def _built(preset: str, ground: Ground) -> Any:
    # The one look upwards: this tool also times the network that the operators serve.
    from spair_core import network

    config = {"light": network.light, "full": network.full}[preset]()
    return network.Spair(config).eval().to(ground.x)


def _network(preset: str, ground: Ground) -> Contest:
    from spair_core import cost

    model = _built(preset, ground)
    pictures, mask, everywhere = leaf(ground.x.sigmoid()), ground.mask, torch.ones_like(ground.mask)
    leaves = [pictures, *model.parameters()]
    flops = 2 * cost.count_mask(model.config, mask.cpu()).macs_per_pixel * mask.numel()
    work: dict[Pass, float] = {"forward": flops}
    if pictures.is_cuda or preset == "light":  # the full one's backward pass takes a CPU too long
        work["both"] = 3 * flops
    return Contest(
        Form(lambda: model(pictures, mask).restored, leaves),
        {"the same network, every pixel marked": Form(lambda: model(pictures, everywhere).restored, leaves)},
        "gemm",
        work,
        lambda: copy.deepcopy(model).double()(pictures.double(), mask).restored,
    )


CONTESTS: dict[str, Callable[[Ground], Contest]] = {
    "index": _index,
    "sc_block": _sc,
    "snl_step": _snl,
    "sfm": _sfm,
    "network_light": functools.partial(_network, "light"),
    "network_full": functools.partial(_network, "full"),
}


@dataclass(frozen=True)
class Peaks:
    """Measured: floating point operations a second by dtype, and bytes read and written a second."""

    gemm: Mapping[str, float]
    copy: float

    @staticmethod
    def measure(device: str, dtypes: Sequence[str], *, quick: bool = False) -> Peaks:
        """The best of several: a square matrix product, and a copy from one large tensor to another."""
        side, size = (512, 1 << 24) if quick else (2048, 1 << 28) if device == "cpu" else (8192, 1 << 30)

        def best(task: Callable[[], object]) -> float:
            return min(_milliseconds(task, device) for _ in range(8)) / 1000

        gemm = {}
        for dtype in dtypes:
            a, b = torch.randn(2, side, side, device=device).to(getattr(torch, dtype))
            gemm[dtype] = 2 * side**3 / best(functools.partial(torch.mm, a, b, out=torch.empty_like(a)))
        source = torch.randint(256, (size,), dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        return Peaks(gemm, 2 * size / best(lambda: target.copy_(source)))


def measure(scene: Scene, device: str, peaks: Peaks, repeats: int) -> Iterator[Row]:
    """Run one scene: a row for each pass and baseline."""
    contest = CONTESTS[scene.op](Ground.of(scene, device))
    error: float | None = None
    peak = peaks.copy if contest.bound == "copy" else peaks.gemm[scene.dtype]
    for wanted, work in contest.work.items():
        forms = {"ours": contest.ours, **contest.baselines}
        tasks = [_warm(f"{name}, {scene}", form, wanted) for name, form in forms.items()]
        ours, *others = _medians(tasks, device, repeats)
        if ours and error is None and contest.exact and scene.height * scene.width <= ERROR_CELLS:
            with torch.no_grad():
                exact = contest.exact()
                error = float((contest.ours.call().double() - exact).norm() / exact.norm())
        share = work / (ours / 1000) / peak if ours else None
        for name, other in zip(contest.baselines, others, strict=True):
            ratio = other / ours if ours and other else None
            yield dict(zip(KEYS, (*scene, wanted, ours, name, other, ratio, share, error), strict=True))


def _measured(scene: Scene, device: str, peaks: Peaks, repeats: int, threads: int) -> list[Row]:
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = device == "cuda"  # the dense baselines at their best
    return list(measure(scene, device, peaks, repeats))


def _each_apart(task: Callable[[Scene], list[Row]], wanted: Sequence[Scene]) -> Iterator[list[Row]]:
    """The rows of each scene, every one run in a fresh process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kernels"])  # a process then starts with torch loaded
    with concurrent.futures.ProcessPoolExecutor(1, context, max_tasks_per_child=1) as processes:
        yield from processes.map(task, wanted)


def _warm(name: str, form: Form, wanted: Pass) -> Callable[[], object] | None:
    """What is to be timed, run once; None where it fails or gives numbers that are not finite."""
    forward = torch.no_grad()(form.call)
    try:
        out = forward()
        if not out.isfinite().all():
            raise FloatingPointError("the result is not finite")
        if wanted == "forward":
            return forward
        upstream = torch.randn_like(out)

        def both() -> object:
            # Without degraded pixels a network leaves its sparse layers unused.
            return torch.autograd.grad(form.call(), form.leaves, upstream, allow_unused=True)

        both()
    except FAILURES as reason:
        print(f"not measured: {name}: {reason!r}", file=sys.stderr)
        return None
    return both


def _medians(tasks: Sequence[Callable[[], object] | None], device: str, repeats: int) -> list[float | None]:
    """Milliseconds of each task; they take turns, so that a change of the machine's pace hits all alike."""
    spent: list[list[float]] = [[] for _ in tasks]
    for _ in range(repeats):
        for task, times in zip(tasks, spent, strict=True):
            if task:
                times.append(_milliseconds(task, device))
    return [statistics.median(times) if times else None for times in spent]


def _milliseconds(task: Callable[[], object], device: str) -> float:
    if device == "cpu":
        started, calls, spent = time.perf_counter(), 0, 0.0
        while spent < TURN:
            task()
            calls, spent = calls + 1, time.perf_counter() - started
        return 1000 * spent / calls
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    task()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def heading(device: str, peaks: Peaks) -> str:
    """What stands above a table: the machine, the date, the versions, the peaks and how to read it."""
    if device == "cuda":
        machine = torch.cuda.get_device_name()
        tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        how = f"CUDA {torch.version.cuda}, TF32 in convolutions {tf32[0]}, in products {tf32[1]}"
    else:
        facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
        models = [line.partition(": ")[2] for line in facts.splitlines() if line.startswith("model name")]
        machine, how = (*models, platform.processor())[0], f"threads: {torch.get_num_threads()}"
    rates = ", ".join(f"{dtype} product {rate / 1e9:,.1f} GFLOP/s" for dtype, rate in peaks.gemm.items())
    return f"""# {machine}

{datetime.date.today()}, torch {torch.__version__}, {how}, pictures in a batch: {PICTURES[device]}.
Measured peaks: {rates}, copy {peaks.copy / 1e9:,.1f} GB/s (read plus written).
Made by `python -m kernels.benchmark`, whose docstring says what each number is; times in milliseconds.

| {" | ".join(KEYS)} |
{"|---" * len(KEYS)}|"""


def table_line(row: Row) -> str:
    """A row as a line of a Markdown table."""
    forms = {"ours_ms": ".3f", "baseline_ms": ".3f", "ratio": ".2f", "peak_share": ".1%", "error": ".1e"}
    cells = ("null" if row[key] is None else format(row[key], forms.get(key, "")) for key in KEYS)
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the flags and measure; every row is printed as it comes."""
    parser = argparse.ArgumentParser(prog="python -m kernels.benchmark", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="file for the rows, as a list of objects")
    parser.add_argument("--markdown", type=Path, help="file for the dated table")
    parser.add_argument("--quick", action="store_true", help="one small scene of each operator")
    parser.add_argument("--threads", type=int, help="of torch on the CPU (default: 1 with --device cpu)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that a median is taken of")
    flags = parser.parse_args(arguments)
    if flags.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here")
    if flags.threads or flags.device == "cpu":
        torch.set_num_threads(flags.threads or 1)

    wanted = list(scenes(flags.device, quick=flags.quick))
    peaks = Peaks.measure(flags.device, sorted({scene.dtype for scene in wanted}), quick=flags.quick)
    rows: list[Row] = []
    table = [heading(flags.device, peaks)]
    print(table[0], flush=True)
    task = functools.partial(
        _measured, device=flags.device, peaks=peaks, repeats=flags.repeats, threads=torch.get_num_threads()
    )
    for found in _each_apart(task, wanted) if flags.device == "cpu" else map(task, wanted):
        for row in found:
            rows.append(row)
            table.append(table_line(row))
            print(table[-1], flush=True)
        # Anew after every scene: a run that is cut short leaves what it measured.
        if flags.json:
            flags.json.write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n")
        if flags.markdown:
            flags.markdown.write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
