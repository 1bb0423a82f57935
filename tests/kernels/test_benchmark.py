"""The benchmark: what it writes, that its baselines compute the same, and the densities of its masks."""

import json

import pytest
import torch

from kernels import benchmark, reference

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

    forms = [benchmark.Form(broken), benchmark.Form(lambda: torch.tensor(torch.nan))]
    assert (
        benchmark._medians([benchmark._warm("it", form, "forward") for form in forms], "cpu", 2) == [None] * 2
    )
    told = capsys.readouterr().err
    assert "no such dtype" in told
    assert "not finite" in told


@pytest.mark.parametrize("shape", ["streak", "blob", "random"])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.5, 0.8])
def test_masks_have_the_density_asked_for(shape, density):
    mask = benchmark.draw_mask(shape, 2, 96, 128, density)
    assert mask.shape == (2, 1, 96, 128)
    assert mask.dtype == torch.bool
    spread = {"streak": 120 / mask[0].numel(), "blob": 1e-4, "random": 0.02}[shape]
    assert mask.float().mean((1, 2, 3)) == pytest.approx([density] * 2, abs=spread)
    assert torch.equal(mask, benchmark.draw_mask(shape, 2, 96, 128, density))


def test_the_dense_forms_are_the_references_where_cells_are_degraded():
    torch.manual_seed(0)
    mask = benchmark.draw_mask("random", 2, 9, 7, 0.4)
    mask[0, 0, 3] = True  # a row without keys
    x = torch.randn(2, benchmark.CHANNELS, 9, 7, dtype=torch.float64)
    blend = torch.randn(2, 4, 9, 7, dtype=torch.float64)
    expected = reference.snl_step(x, mask, blend, benchmark.SNL_SCALE)
    for attend in (benchmark.row_masked(mask), benchmark.fused(mask, x.dtype)):
        torch.testing.assert_close(benchmark.dense_snl(x, blend, attend) * mask, expected)
    torch.testing.assert_close(
        benchmark.eager_sfm(x, mask, **benchmark.SFM_GUARDS), reference.sfm(x, mask, **benchmark.SFM_GUARDS)
    )
    shapes = [(4, benchmark.CHANNELS, 3, 3), (4, benchmark.CHANNELS + 4, 3, 3), (5, benchmark.CHANNELS + 8)]
    weights = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    biases = [torch.randn(shape[0], dtype=torch.float64) for shape in shapes]
    everywhere = torch.ones_like(mask)
    torch.testing.assert_close(
        benchmark.dense_sc(x, weights, biases),
        reference.sc_block(x, everywhere, weights[:-1], biases[:-1], weights[-1], biases[-1]),
    )
