"""No kernel reads or writes beyond its memory, and tests of it would see one that does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.kernels.cuda.emulator import Mutation
from tests.kernels.cuda.everything import run_everything

ROOT = Path(__file__).parents[3]


@pytest.mark.long
def test_no_kernel_leaves_its_memory(sanitizer):
    code, said = sanitizer.run()
    assert code == 0, said
    assert "every kernel ran" in said


GUARDS = {
    "compact_cells: cells beyond the mask": Mutation(
        "cells", "if (at >= cells) continue;", "", "compact_cells"
    ),
    "neighbour_table: cells beyond the last": Mutation(
        "cells", "if (row >= n) return;", "", "neighbour_table"
    ),
    "sc_product: rows beyond the last": Mutation("sc", "if (row >= n) continue;", "", "sc_product"),
    "snl: keys beyond the tile": Mutation(
        "snl", "there ? size_t(numbers[at]) * C : 0", "size_t(numbers[at]) * C"
    ),
}
for kernel in ("count_cells", "compact_cells"):
    GUARDS[f"{kernel}: kinds beyond the mask"] = Mutation("cells", "at >= cells ? KINDS : ", "", kernel)
for kernel in ("count_lines", "fill_lines"):
    GUARDS[f"{kernel}: lines beyond the last"] = Mutation("lines", "if (line >= lines) return;", "", kernel)
    GUARDS[f"{kernel}: cells beyond the line"] = Mutation(
        "lines", "place < walk.length", "place < walk.length + 64", kernel
    )
for kernel in ("sfm_moments", "sfm_grad_sums"):
    GUARDS[f"{kernel}: channels beyond the last"] = Mutation(
        "sfm", "if (threadIdx.y < 2 && channel < channels)", "if (threadIdx.y < 2)", kernel
    )


@pytest.mark.long
@pytest.mark.parametrize("mutation", GUARDS.values(), ids=GUARDS)
def test_an_overrun_is_seen(mutation, sanitizer):
    """Negative controls of the test above."""
    code, said = sanitizer.run(mutation)
    assert code != 0
    assert "AddressSanitizer" in said


@pytest.mark.gpu
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_has_nothing_to_say(tool, gpu):
    if not shutil.which("compute-sanitizer"):
        pytest.skip("compute-sanitizer (of the CUDA toolkit) is not on the PATH")
    # Without torch's pool every tensor is an allocation of its own, whose end is seen.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "3"]
    if tool == "memcheck":
        # Calls that fail raise by themselves, but for those with which torch asks what a driver can do.
        command += ["--report-api-errors", "no"]
    command += [sys.executable, "-m", "tests.kernels.cuda.everything"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_kernel_reads_what_was_never_written(dtype, gpu):
    """With NaN in all memory that is handed out: compute-sanitizer's initcheck does not see
    what the libraries beneath torch write."""
    results = run_everything(dtype, gpu)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        again = run_everything(dtype, gpu)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(value.isfinite().all() for value in again)
    assert all(torch.equal(one, other) for one, other in zip(results, again, strict=True))
