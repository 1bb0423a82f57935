"""Every CUDA kernel once, on a small mask: what sanitizers and determinism are tried on.

    python -m tests.kernels.everything cuda
    python -m tests.kernels.everything emulated FOLDER [FILE OLD NEW]

Emulated, with the address sanitizer compiled in (so run it with libasan preloaded), and with NEW in
place of OLD in a kernel file; libraries are built in FOLDER.
"""

import sys
from pathlib import Path

import torch

from kernels import build_index, cuda, index
from tests.kernels.emulator import Emulator, streaks

MASKS = {
    "streaks": streaks(2, 19, 23, 0.25),
    "one pixel": torch.zeros(1, 1, 6, 5).index_fill_(3, torch.tensor(3), 1).bool() & torch.eye(6, 5).bool(),
    "noise": torch.rand(1, 1, 13, 40, generator=torch.Generator().manual_seed(0)) < 0.5,
    "half": torch.arange(40).expand(1, 1, 9, 40) < 20,
}


def rows_of(features: torch.Tensor) -> torch.Tensor:
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def made_features(mask: torch.Tensor, channels: int, dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    n, _, height, width = mask.shape
    return torch.randn(n, channels, height, width, generator=generator).to(mask.device, dtype)


def block_parameters(channels: int, growth: int, layers: int, dtype: torch.dtype, device: str = "cpu"):
    """An SC block's weights, biases, last weight and last bias."""
    generator = torch.Generator().manual_seed(2)

    def make(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) / 4).to(device, dtype)

    weights = [make(growth, channels + i * growth, 3, 3) for i in range(layers)]
    return weights, [make(growth) for _ in range(layers)], make(16, channels + layers * growth), make(16)


def run_everything(dtype: torch.dtype, device: str = "cpu") -> list[torch.Tensor]:
    """All results of one forward and backward call of each operator's kernels."""
    mask = MASKS["streaks"].to(device)
    made = build_index(mask)
    features, blend = made_features(mask, 8, dtype), made_features(mask, 4, dtype, seed=2)
    parameters = block_parameters(8, 8, 2, dtype, device)
    cells = rows_of(features)
    queries, keys, weights = cells[made.active], cells[made.clean], rows_of(blend)[made.active]
    out, buffer = cuda.sc_block(queries, made.neighbours, *parameters)
    grads = cuda.sc_block_backward(out, buffer, made.neighbours, parameters[0], parameters[2])
    results = [out, grads[0], *grads[1], *grads[2]]
    results += [cuda.snl_step(queries, keys, weights, made.lines, 0.4)]
    results += cuda.snl_step_backward(queries, queries, keys, weights, made.lines, 0.4)
    moved, statistics = cuda.sfm(features, mask, 1e-3, 4.0, 4.0)
    return [*results, moved, cuda.sfm_backward(moved, features, mask, statistics, 4.0)]


def main(machine: str, folder: str = ".", *mutation: str) -> None:
    if machine == "emulated":
        emulator = Emulator(Path(folder), "-fsanitize=address", "-g")
        emulator.mutation = mutation or None
        cuda.launch, index._on_kernels = emulator.launch, lambda _: True
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        run_everything(dtype, "cuda" if machine == "cuda" else "cpu")
    print("every kernel ran")


if __name__ == "__main__":
    main(*sys.argv[1:])
