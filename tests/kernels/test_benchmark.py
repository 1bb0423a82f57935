"""The benchmark: what it writes, and what it does with a form that fails."""

import json

import pytest
import torch

from kernels import benchmark, contests, scenes

OPERATORS = ["index", "sc_block", "snl_step", "sfm", "network_light", "network_full"]
KEYS = [
    "op", "height", "width", "channels", "density", "mask", "dtype", "pass",
    "ours_ms", "baseline", "baseline_ms", "ratio", "peak_share", "error",
]  # fmt: skip


@pytest.mark.long
def test_a_quick_run_writes_a_row_for_each_operator_pass_and_baseline(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "_each_apart", map)  # in processes of their own they run for the GPU's kit
    table, page = tmp_path / "rows.json", tmp_path / "table.md"
    benchmark.main(["--quick", "--repeats", "2", "--json", str(table), "--markdown", str(page)])
    rows = json.loads(table.read_text())
    assert all(list(row) == KEYS for row in rows)
    assert list(dict.fromkeys(row["op"] for row in rows)) == OPERATORS
    twice = ["sc_block", "snl_step", "snl_step", "sfm", "network_light"]
    assert [row["op"] for row in rows if row["pass"] == "both"] == twice
    for row in rows:
        assert row["ours_ms"] > 0
        assert row["baseline_ms"] > 0
        assert row["ratio"] == pytest.approx(row["baseline_ms"] / row["ours_ms"])
        assert row["peak_share"] > 0
        assert row["error"] is None if row["op"] == "index" else row["error"] < 1e-5
    lines = page.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert sum(line.startswith("| ") for line in lines) == len(rows) + 1


def test_out_of_time_no_scene_begins_and_what_is_left_is_told(tmp_path, capsys):
    table = tmp_path / "rows.json"
    benchmark.main(["--quick", "--repeats", "1", "--seconds", "0", "--json", str(table)])
    assert "out of time: 6 of 6 scenes left" in capsys.readouterr().err
    assert not table.exists()


@pytest.mark.long
@pytest.mark.parametrize("op", contests.CONTESTS)
def test_a_picture_of_nothing_but_degraded_cells_is_measured(op):
    channels = 3 if op in (*scenes.NETWORKS, *scenes.REPLAYED) else scenes.CHANNELS
    scene = scenes.Scene(op, 16, 24, channels, 1.0, "streak", "float32", pictures=2)
    peaks = benchmark.Peaks({"float32": 1e9}, 1e9)
    rows = list(benchmark.measure(scene, "cpu", peaks, repeats=1))
    assert rows
    assert all(row["ours_ms"] and row["baseline_ms"] for row in rows)


def test_a_row_of_a_gpu_says_how_many_frames_a_second():
    row = dict.fromkeys(benchmark.GPU_KEYS, 1.0) | {"frames_per_second": 123.456}
    assert benchmark.table_line(row).endswith("| 123.5 |")


def test_a_form_that_fails_or_is_not_finite_is_not_timed(capsys):
    def broken():
        raise RuntimeError("no such dtype")

    forms = [contests.Form(broken), contests.Form(lambda: torch.tensor(torch.nan))]
    assert (
        benchmark._medians([benchmark._warm("it", form, "forward") for form in forms], "cpu", 2) == [None] * 2
    )
    told = capsys.readouterr().err
    assert "no such dtype" in told
    assert "not finite" in told
