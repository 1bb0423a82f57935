"""Threads in any order give the same bits, and tests of it would see a missing barrier."""

import faulthandler
import multiprocessing
import os

import pytest
import torch

from kernels import build_index, sc_block, sfm, snl_step
from tests.kernels.cuda.emulator import ORDERS, Mutation
from tests.kernels.cuda.everything import run_everything
from tests.kernels.cuda.pictures import MASKS, block_parameters, made_features
from tests.kernels.samples import rows_of

pytestmark = pytest.mark.long


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


BARRIERS = {
    "compact_cells: counts changed while they are read": Mutation(
        "cells", ": 0;\n  __syncwarp();", ": 0;", "compact_cells"
    ),
    "compact_cells: starts read too early": Mutation(
        "cells", "}\n  }\n  __syncthreads();", "}\n  }", "compact_cells"
    ),
    "sc_product: taps counted too early": Mutation(
        "sc", "present[tap] = 1;\n  }\n  __syncthreads();", "present[tap] = 1;\n  }", "sc_product"
    ),
    "sfm_moments: merged too early": Mutation(
        "sfm", "mine[kind];\n  __syncthreads();", "mine[kind];", "sfm_moments"
    ),
    "sfm_grad_sums: added up too early": Mutation(
        "sfm", "= along;\n  __syncthreads();", "= along;", "sfm_grad_sums"
    ),
}
for kernel in ("count_cells", "compact_cells"):
    BARRIERS[f"{kernel}: counts added up too early"] = Mutation(
        "cells", "mine);\n  __syncthreads();", "mine);", kernel
    )
for kernel in ("sc_product", "sc_weight_grad"):
    BARRIERS |= {
        f"{kernel}: products before the rows have come": Mutation(
            "sc", "wait_for_copies<1>();\n    __syncthreads();", "", kernel
        ),
        f"{kernel}: rows replaced while in use": Mutation(
            "sc", "multiply(step % 2);\n    __syncthreads();", "multiply(step % 2);", kernel
        ),
    }
for kernel in ("snl_forward", "snl_query_grad", "snl_key_grad"):
    BARRIERS |= {
        f"{kernel}: shares read before all are written": Mutation("snl", "__syncwarp();", "", kernel),
        f"{kernel}: cells read before they have come": Mutation(
            "snl", "wait_for_copies<0>();\n  __syncthreads();", "", kernel
        ),
    }


@pytest.mark.parametrize("mutation", BARRIERS.values(), ids=BARRIERS)
def test_a_missing_barrier_is_seen(mutation, small_emulator):
    """Negative controls: without them, nothing says that the tests above could fail."""
    expected = run_everything(torch.float32)
    small_emulator.mutation = mutation
    small_emulator.functions(mutation.file, mutation)

    def differs() -> None:
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            got = run_everything(torch.float32)
        except (AssertionError, RuntimeError, IndexError, ValueError):
            os._exit(1)  # threads at different barriers, or tables that do not fit
        os._exit(int(not same_bits(expected, got)))

    codes = []
    for small_emulator.order in ORDERS.values():
        # In a process of its own: a wrong table may well be written out of bounds.
        process = multiprocessing.get_context("fork").Process(target=differs)
        process.start()
        process.join()
        codes.append(process.exitcode)
    assert any(codes)
