"""The benchmark: what it writes, and what it does with a form that fails."""

import json

import pytest
import torch

from kernels import benchmark, contests

OPERATORS = ["index", "sc_block", "snl_step", "sfm", "network_light", "network_full"]
KEYS = [
    "op", "height", "width", "channels", "density", "mask", "dtype", "pass",
    "ours_ms", "baseline", "baseline_ms", "ratio", "peak_share", "error",
]  # fmt: skip


def test_a_quick_run_writes_a_row_for_each_operator_pass_and_baseline(tmp_path):
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
