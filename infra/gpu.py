"""All that needs a GPU, within minutes, on a machine that has torch, CuPy and pytest and little else.

    make gpu ARGS="--pack footage.zip --out .gpu"

Stages run one after another, each with a time limit and whatever became of those before it: the kernels'
`tests` run natively, compute-sanitizer's memcheck over every kernel (`sanitizer`), the `benchmark` of
operators and networks, `training` from the shipped weights on a pack for what is left of the
time, and `racecheck` if there still is some. What a stage gives is in the folder, in files that begin
with its name, as soon as it gives it; `summary.json` says what became of each. The exit status is 0
where every stage that could run passed, else 1. `--device cpu --tiny` tries all this without a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch

from infra import processes
from kernels.cuda import device

ROOT = Path(__file__).parents[1]
STAGES = ("tests", "sanitizer", "benchmark", "training", "racecheck")
GRACE_SECONDS = 5
"""How long a stage may take to write down what it has when its time is over."""
SPARE_SECONDS = 60
"""Of what is left, what a training is not told to use: it has to start, and to finish its last step."""
TAIL = 12
"""Lines of a log that are shown of a stage that did not pass."""

Ending = Literal["passed", "failed", "out of time", "not run"]


@dataclass(frozen=True)
class GpuConfig:
    """What is run, on what, for how long, and where the results go."""

    out: Path = Path(".gpu")
    minutes: float = 9.5
    """All stages together."""
    benchmark_seconds: float = 200
    """After which no scene of the benchmark begins."""
    pack: Path | None = None
    """What training learns from."""
    device: str = "cuda"
    tiny: bool = False
    """The smallest selections: a try of the kit itself."""
    only: tuple[str, ...] = STAGES


@dataclass(frozen=True)
class Stage:
    """A command and its limits, in seconds.

    It gets `seconds`, or what is left of all the time, and is not begun with less than `least`. "{minutes}"
    in the command becomes the minutes left, but for SPARE_SECONDS. `missing`: why it cannot run here.
    """

    name: str
    command: tuple[str, ...]
    seconds: float = 3600
    least: float = 5
    environment: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a stage: how it ended, the last line it printed or why it did not run, and its files."""

    stage: str
    ending: Ending
    says: str
    seconds: float = 0
    files: tuple[str, ...] = ()


def stages(config: GpuConfig) -> list[Stage]:
    """The chosen ones for this machine, in order."""
    absent = device.unavailable() or "" if config.device == "cuda" else "it needs a GPU"
    made = [
        Stage("tests", _tests(config), 150, missing=absent if config.device == "cuda" else ""),
        _sanitizer("sanitizer", "memcheck", absent, 100),
        Stage("benchmark", _benchmark(config), config.benchmark_seconds + 30, least=30),
        _training(config),
        _sanitizer("racecheck", "racecheck", absent, 100),
    ]
    return [stage for stage in made if stage.name in config.only]


def _tests(config: GpuConfig) -> tuple[str, ...]:
    chosen = ["tests/kernels", "tests/spair_core/gpu"]
    if config.tiny:
        names = ("cuda/test_cells",) if config.device == "cuda" else ("test_index", "test_tables")
        chosen = [f"tests/kernels/{name}.py" for name in names]
    marked = ["-m", "gpu", "-k", "not sanitizer"] if config.device == "cuda" else ["-m", "not gpu"]
    many = config.device == "cuda" and not config.tiny and importlib.util.find_spec("xdist")
    beside = ["--numprocesses", "4"] if many else []
    report = ["--junitxml", str(config.out / "tests.xml"), "-ra"]
    return (sys.executable, "-m", "pytest", *chosen, *marked, *beside, *report)


def _sanitizer(name: str, tool: str, absent: str, seconds: float) -> Stage:
    program = "compute-sanitizer"
    command = [program, "--tool", tool, "--error-exitcode", "9"]
    if tool == "memcheck":
        # Calls that fail raise by themselves, but for those with which torch asks what a driver can do.
        command += ["--report-api-errors", "no"]
    command += [sys.executable, "-m", "tests.kernels.cuda.everything"]
    missing = absent or ("" if shutil.which(program) else f"{program} is not installed")
    # Without torch's pool every tensor is an allocation of its own, whose end is seen.
    return Stage(name, tuple(command), seconds, 20, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}, missing)


def _benchmark(config: GpuConfig) -> tuple[str, ...]:
    files = ["--json", str(config.out / "benchmark.json"), "--markdown", str(config.out / "benchmark.md")]
    size = ["--quick", "--repeats", "1"] if config.tiny else []
    limit = ["--seconds", str(config.benchmark_seconds)]
    return (sys.executable, "-m", "kernels.benchmark", "--device", config.device, *limit, *files, *size)


def _training(config: GpuConfig) -> Stage:
    command = [sys.executable, "-m", "spair_core.learning.single", str(config.pack)]
    command += ["--start-from", "footage-light", "--minutes", "{minutes}", "--device", config.device]
    command += ["--out", str(config.out / "training")]
    missing = "no --pack was given" if config.pack is None else ""
    return Stage("training", tuple(command), least=SPARE_SECONDS + 30, missing=missing)


def run(wanted: Sequence[Stage], out: Path, seconds: float, machine: Mapping[str, object]) -> list[Outcome]:
    """Run every stage within so many seconds together; the summary is written anew after each."""
    started, outcomes = time.monotonic(), []
    for stage in wanted:
        left = seconds - (time.monotonic() - started)
        if stage.missing:
            outcome = Outcome(stage.name, "not run", stage.missing)
        elif left < stage.least:
            outcome = Outcome(stage.name, "not run", f"{max(left, 0):.0f} s left, it needs {stage.least:.0f}")
        else:
            print(f"{stage.name} ...", flush=True)
            outcome = _run(stage, out, left)
        outcomes.append(outcome)
        _report(outcome, out)
        summary = {"machine": machine, "seconds": round(time.monotonic() - started, 1)}
        summary["stages"] = [asdict(known) for known in outcomes]
        (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return outcomes


def _run(stage: Stage, out: Path, left: float) -> Outcome:
    log, started = out / f"{stage.name}.log", time.monotonic()
    for stale in _files(stage, out):  # what an earlier run trained stays: it may be gone on with
        if stale.parent == out:
            stale.unlink()
    command = [part.replace("{minutes}", f"{(left - SPARE_SECONDS) / 60:.2f}") for part in stage.command]
    ending: Ending = "failed"
    with log.open("wb") as output:
        process = processes.start(
            command, stage.environment, signal.SIGINT,
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            if process.wait(min(stage.seconds, left - GRACE_SECONDS)) == 0:
                ending = "passed"
        except subprocess.TimeoutExpired:
            ending = "out of time"
        finally:
            processes.stop(process, signal.SIGINT, GRACE_SECONDS)
    files = tuple(str(path.relative_to(out)) for path in _files(stage, out))
    return Outcome(stage.name, ending, _last_lines(log, 1), round(time.monotonic() - started, 1), files)


def _files(stage: Stage, out: Path) -> list[Path]:
    found = (path for path in out.rglob("*") if path.is_file())
    return sorted(path for path in found if path.relative_to(out).parts[0].split(".")[0] == stage.name)


def _last_lines(log: Path, count: int) -> str:
    return "\n".join([line for line in log.read_text(errors="replace").splitlines() if line.strip()][-count:])


def _report(outcome: Outcome, out: Path) -> None:
    print(f"{outcome.stage}: {outcome.ending} ({outcome.seconds:.0f} s): {outcome.says}", flush=True)
    if outcome.ending in ("failed", "out of time"):
        print(_last_lines(out / f"{outcome.stage}.log", TAIL), flush=True)


def facts() -> dict[str, str | None]:
    """The GPU and its driver, by nvidia-smi, and the versions that results depend on; None if not there."""
    gpu = driver = cupy_version = None
    if shutil.which("nvidia-smi"):
        question = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        answer = subprocess.run(question, capture_output=True, text=True).stdout.strip()
        gpu, _, driver = (answer.splitlines() or [""])[0].partition(", ")
    if importlib.util.find_spec("cupy"):
        cupy_version = getattr(importlib.import_module("cupy"), "__version__", None)
    return {
        "gpu": gpu,
        "driver": driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cupy": cupy_version,
        "python": platform.python_version(),
    }


def table(outcomes: Sequence[Outcome]) -> str:
    """A line a stage."""
    lines = [f"{'stage':<10} {'outcome':<12} {'seconds':>7}  files, and what it said last"]
    for known in outcomes:
        lines.append(f"{known.stage:<10} {known.ending:<12} {known.seconds:>7.1f}  {', '.join(known.files)}")
        lines.append(f"{'':<32} {known.says}")
    return "\n".join(lines)


def parsed(arguments: Sequence[str] | None = None) -> GpuConfig:
    """The flags; with plain argparse, for tyro is not on every machine that has a GPU."""
    default = GpuConfig()
    parser = argparse.ArgumentParser(prog="python -m infra.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=default.out, help="folder for the results")
    parser.add_argument("--minutes", type=float, default=default.minutes, help="for all stages together")
    parser.add_argument(
        "--benchmark-seconds", type=float, default=default.benchmark_seconds, help="no scene begins later"
    )
    parser.add_argument("--pack", type=Path, help="what to train on, by spair_core.learning.pack")
    parser.add_argument("--device", choices=("cuda", "cpu"), default=default.device)
    parser.add_argument("--tiny", action="store_true", help="the smallest selections, to try the kit itself")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES, help="stages to run")
    flags = parser.parse_args(arguments)
    if flags.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no NVIDIA GPU here; --device cpu --tiny tries the kit without one")
    if flags.pack is not None and not flags.pack.exists():
        parser.error(f"there is no pack {flags.pack}")
    paths = {"out": flags.out.resolve(), "pack": flags.pack and flags.pack.resolve()}
    return GpuConfig(**{**vars(flags), **paths, "only": tuple(flags.only)})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; the exit status."""
    config = parsed(arguments)
    config.out.mkdir(parents=True, exist_ok=True)
    machine = facts()
    print(", ".join(f"{name} {value}" for name, value in machine.items() if value), flush=True)
    outcomes = run(stages(config), config.out, 60 * config.minutes, machine)
    print(table(outcomes))
    return int(any(outcome.ending in ("failed", "out of time") for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
