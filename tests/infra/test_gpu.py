"""The GPU kit: no stage stops the next one, and the summary says what became of each."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import gpu
from infra.gpu import Stage


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def summary(out: Path) -> dict[str, dict[str, object]]:
    return {stage["stage"]: stage for stage in json.loads((out / "summary.json").read_text())["stages"]}


@pytest.mark.long
def test_a_stage_that_fails_and_one_that_takes_too_long_do_not_stop_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: Callable[[int], set[int]]
) -> None:
    monkeypatch.setattr(gpu, "GRACE_SECONDS", 0.5)
    # It does not end when it is asked to, and nor does what it started.
    stubborn = "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    stubborn += (
        "print('begun', flush=True); subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    table = [
        Stage("broken", python("print('no luck'); raise SystemExit(3)")),
        Stage("slow", python(stubborn), seconds=1),
        Stage("absent", python("raise AssertionError"), missing="there is no tool"),
        Stage("late", python("raise AssertionError"), least=1000),
        Stage("good", python("import os; print(os.environ['COLOUR'])"), environment={"COLOUR": "green"}),
    ]
    before, started = family(os.getpid()), time.monotonic()
    gpu.run(table, tmp_path, 60, {"gpu": "none"})
    assert time.monotonic() - started < 20
    assert family(os.getpid()) == before
    told = summary(tmp_path)
    assert {name: (stage["ending"], stage["says"]) for name, stage in told.items() if name != "late"} == {
        "broken": ("failed", "no luck"),
        "slow": ("out of time", "begun"),
        "absent": ("not run", "there is no tool"),
        "good": ("passed", "green"),
    }
    assert told["late"]["ending"] == "not run"
    assert "it needs 1000" in str(told["late"]["says"])
    assert told["good"]["files"] == ["good.log"]
    assert json.loads((tmp_path / "summary.json").read_text())["machine"] == {"gpu": "none"}


def test_a_stage_is_told_what_is_left_and_replaces_its_files_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "late.old").write_text("of an earlier run")
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "checkpoint").write_text("to go on from")
    late = Stage("late", (*python("import sys; print(sys.argv[1])"), "{minutes}"))
    (outcome,) = gpu.run([late], tmp_path, 180, {})
    assert float(outcome.says) == pytest.approx(2, abs=0.1)
    assert outcome.files == ("late/checkpoint", "late.log")


@pytest.mark.long
def test_the_kit_runs_without_a_gpu(tmp_path: Path) -> None:
    flags = ["--device", "cpu", "--tiny", "--only", "tests", "sanitizer", "training", "--out", str(tmp_path)]
    assert gpu.main(flags) == 0
    told = summary(tmp_path)
    assert {name: stage["ending"] for name, stage in told.items()} == {
        "tests": "passed",
        "sanitizer": "not run",
        "training": "not run",
    }
    assert told["tests"]["files"] == ["tests.log", "tests.xml"]
    assert told["training"]["says"] == "no --pack was given"


@pytest.mark.long
def test_its_benchmark_runs_without_a_gpu(tmp_path: Path) -> None:
    assert gpu.main(["--device", "cpu", "--tiny", "--only", "benchmark", "--out", str(tmp_path)]) == 0
    assert summary(tmp_path)["benchmark"]["files"] == ["benchmark.json", "benchmark.log", "benchmark.md"]
    assert json.loads((tmp_path / "benchmark.json").read_text())


def test_on_a_gpu_it_runs_natively_and_trains_on_the_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.device, "unavailable", lambda: None)
    monkeypatch.setattr(gpu.shutil, "which", lambda _: None)
    pack = tmp_path / "drives.pack"
    made = {stage.name: stage for stage in gpu.stages(gpu.GpuConfig(out=tmp_path, pack=pack))}
    assert list(made) == list(gpu.STAGES)
    assert {name: stage.missing for name, stage in made.items() if stage.missing} == {
        "sanitizer": "compute-sanitizer is not installed",
        "racecheck": "compute-sanitizer is not installed",
    }
    assert {"-m", "gpu"} <= set(made["tests"].command)
    assert {str(pack), "footage-light", "{minutes}", "cuda"} <= set(made["training"].command)
    monkeypatch.setattr(gpu.device, "unavailable", lambda: "CuPy is not installed")
    assert gpu.stages(gpu.GpuConfig(only=("tests",)))[0].missing == "CuPy is not installed"


def test_what_it_cannot_start_with_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--device", "cpu", "--pack", "nowhere.pack"])
    assert "there is no pack nowhere.pack" in capsys.readouterr().err
