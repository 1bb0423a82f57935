"""How fast the operators and the network are here, beside their dense forms and the machine's own peaks.

    python -m kernels.benchmark [--device cpu|cuda] [--seconds N] [--json FILE] [--markdown FILE]

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
its pixels one by one) and the same network in float64 (launch by launch in its own type, where ours is
replayed). Null for `index`: its tables are right or wrong, not near, and its tests say which.

On a GPU a scene has a batch of `pictures`, rows say how many of them a second our form takes
(`frames_per_second`), and the networks' convolutions are those that cuDNN picks without trying, as when
footage is restored; those of SC's scenes are tried out first, the dense baseline at its best.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import functools
import gc
import json
import math
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kernels.contests import CONTESTS, Form, Ground, Pass
from kernels.scenes import Scene, scenes

TURN = 0.05
"""Seconds that a form's turn on a CPU lasts at least."""
ERROR_CELLS = 1 << 16
"""Most cells of a picture that the slow float64 references are run on."""
FAILURES = (RuntimeError, FloatingPointError, AssertionError, KeyError)
"""How a form fails that runs out of memory or does not take a dtype (spconv: the last two)."""

Row = dict[str, str | int | float | None]
KEYS = (*Scene._fields[:-1], "pass", "ours_ms", "baseline", "baseline_ms", "ratio", "peak_share", "error")
"""Of a row: `ratio` is baseline_ms / ours_ms; the pass "both" is forward and backward."""
GPU_KEYS = (*KEYS, "pictures", "frames_per_second")
"""Of a row on a GPU: also the batch, and the pictures of it that ours takes a second."""


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
            numbers = (*scene[:-1], wanted, ours, name, other, ratio, share, error)
            row = dict(zip(KEYS, numbers, strict=True))
            if device == "cuda":
                row["pictures"] = scene.pictures
                row["frames_per_second"] = 1000 * scene.pictures / ours if ours else None
            yield row


def _measured(scene: Scene, device: str, peaks: Peaks, repeats: int, threads: int) -> list[Row]:
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = device == "cuda" and scene.op == "sc_block"
    try:
        return list(measure(scene, device, peaks, repeats))
    except torch.OutOfMemoryError as reason:
        print(f"not measured: {scene}: {reason!r}", file=sys.stderr)
        return []
    finally:
        if device == "cuda":  # the next scene has all of the memory
            gc.collect()
            torch.cuda.empty_cache()


def _in_time(wanted: Sequence[Scene], until: float) -> Iterator[Scene]:
    """The scenes that are asked for before a time of the monotonic clock; says how many were not."""
    for number, scene in enumerate(wanted):
        if time.monotonic() >= until:
            print(f"out of time: {len(wanted) - number} of {len(wanted)} scenes left", file=sys.stderr)
            return
        yield scene


def _each_apart(task: Callable[[Scene], list[Row]], wanted: Iterable[Scene]) -> Iterator[list[Row]]:
    """The rows of each scene, every one run in a fresh process."""
    context = multiprocessing.get_context("forkserver")
    # A process then starts with torch loaded, and what it loads when gradients are first asked for.
    context.set_forkserver_preload(["kernels", "torch._dynamo"])
    with concurrent.futures.ProcessPoolExecutor(1, context, max_tasks_per_child=1) as processes:
        for scene in wanted:  # asked for one by one: time may be over
            yield processes.submit(task, scene).result()


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
    keys = GPU_KEYS if device == "cuda" else KEYS
    if device == "cuda":
        machine = torch.cuda.get_device_name()
        tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        how = f"CUDA {torch.version.cuda}, TF32 in convolutions {tf32[0]}, in products {tf32[1]}"
        how += ", batches as in the table"
    else:
        facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
        models = [line.partition(": ")[2] for line in facts.splitlines() if line.startswith("model name")]
        machine = (*models, platform.processor())[0]
        how = f"threads: {torch.get_num_threads()}, pictures in a batch: 1"
    rates = ", ".join(f"{dtype} product {rate / 1e9:,.1f} GFLOP/s" for dtype, rate in peaks.gemm.items())
    return f"""# {machine}

{datetime.date.today()}, torch {torch.__version__}, {how}.
Measured peaks: {rates}, copy {peaks.copy / 1e9:,.1f} GB/s (read plus written).
Made by `python -m kernels.benchmark`, whose docstring says what each number is; times in milliseconds.

| {" | ".join(keys)} |
{"|---" * len(keys)}|"""


def table_line(row: Row) -> str:
    """A row as a line of a Markdown table."""
    forms = {"ours_ms": ".3f", "baseline_ms": ".3f", "ratio": ".2f", "peak_share": ".1%", "error": ".1e"}
    forms["frames_per_second"] = ".1f"
    cells = ("null" if value is None else format(value, forms.get(key, "")) for key, value in row.items())
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
    parser.add_argument("--seconds", type=float, default=math.inf, help="no scene is begun after so many")
    flags = parser.parse_args(arguments)
    if flags.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here")
    if flags.threads or flags.device == "cpu":
        torch.set_num_threads(flags.threads or 1)

    started, wanted = time.monotonic(), list(scenes(flags.device, quick=flags.quick))
    peaks = Peaks.measure(flags.device, sorted({scene.dtype for scene in wanted}), quick=flags.quick)
    rows: list[Row] = []
    table = [heading(flags.device, peaks)]
    print(table[0], flush=True)
    task = functools.partial(
        _measured, device=flags.device, peaks=peaks, repeats=flags.repeats, threads=torch.get_num_threads()
    )
    in_time = _in_time(wanted, started + flags.seconds)
    for found in _each_apart(task, in_time) if flags.device == "cpu" else map(task, in_time):
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
