"""Every CUDA kernel once, on a small mask: what sanitizers and determinism are tried on.

    python -m tests.kernels.cuda.everything

runs them on a GPU, for compute-sanitizer.
"""

from collections.abc import Iterable

import torch

from kernels import build_index, cuda
from kernels.cuda.device import TYPES
from tests.kernels.cuda.pictures import INDEX_MASKS, block_parameters, made_features, streaks
from tests.kernels.samples import rows_of

MASK = streaks(2, 11, 12, 0.3)
"""Two tiles of SC's rows, three of its steps along them, six blocks of lines, all with a rest."""


def run_everything(dtype: torch.dtype, device: str = "cpu") -> list[torch.Tensor]:
    """All results of one forward and backward call of each operator's kernels."""
    mask = MASK.to(device)
    made = build_index(mask)
    features, blend = made_features(mask, 8, dtype), made_features(mask, 4, dtype, seed=2)
    parameters = block_parameters(8, 8, 2, dtype, device)
    cells = rows_of(features)
    queries, keys, weights = cells[made.active], cells[made.clean], rows_of(blend)[made.active]
    out, buffer = cuda.sc.sc_block(queries, made.neighbours, *parameters)
    grads = cuda.sc.sc_block_backward(out, buffer, made.neighbours, parameters[0], parameters[2])
    results = [out, grads[0], *grads[1], *grads[2]]
    results += [cuda.snl.snl_step(queries, keys, weights, made.lines, 0.4)]
    results += cuda.snl.snl_step_backward(queries, queries, keys, weights, made.lines, 0.4)
    moved, statistics = cuda.sfm.sfm(features, mask, 1e-3, 4.0, 4.0)
    tables = [made.active, made.clean, made.neighbours, *made.lines]
    return [*tables, *results, moved, cuda.sfm.sfm_backward(moved, features, mask, statistics, 4.0)]


def run_all_types(device: str, dtypes: Iterable[torch.dtype] = TYPES) -> None:
    """The same in every type that the kernels take, or some, and the index of more masks."""
    for dtype in dtypes:
        run_everything(dtype, device)
    for mask in INDEX_MASKS.values():
        build_index(mask.to(device))


if __name__ == "__main__":
    run_all_types("cuda")
    print("every kernel ran")
