"""Runs the CUDA kernels on the CPU, through the emulation in `emulation/device.cuh`."""

import ctypes
import hashlib
import subprocess
from pathlib import Path

import numpy as np
import torch

from kernels import cuda

HERE = Path(__file__).parent
TYPES = ("half_t", "bfloat_t", "float")
KERNELS = {
    "index": ["count_cells", "compact_cells", "number_cells", "neighbour_table"],
    "sc": [
        kernel
        for kind in TYPES
        for kernel in (
            *(f"sc_product<{kind}, {tiles}, true>" for tiles in (1, 3)),
            f"sc_product<{kind}, 8, false>",
            *(f"sc_weight_grad<{kind}, {tiles}>" for tiles in (1, 3)),
        )
    ],
    "snl": [
        f"snl_{kernel}<{kind}, {channels}>"
        for kind, channels in [(kind, channels) for kind in TYPES for channels in (8, 72)] + [("float", 256)]
        for kernel in ("forward", "query_grad", "key_grad")
    ],
    "sfm": ["sfm_statistics", "sfm_grad_coefficients"]
    + [
        f"sfm_{kernel}<{kind}>"
        for kind in TYPES
        for kernel in ("moments", "apply", "grad_sums", "grad_apply")
    ],
}
"""What the tests launch, a library a file."""


def code(name: str) -> str:
    """A kernel file with the emulation in place of device.cuh."""
    parts = [HERE / "emulation" / "device.cuh"]
    parts += [Path(cuda.__file__).parent / part for part in ("tile.cuh", f"{name}.cu")]
    return "".join(part.read_text() for part in parts)


class Emulator:
    """Stands in for `kernels.cuda.launch`; builds in `folder` with more `flags` of g++.

    `order` of threads: 0 forward, 1 backward, others random. `mutation`: a file's name, a part of its
    text and what stands there instead.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder, self.flags = folder, flags
        self.order = 0
        self.mutation: tuple[str, str, str] | None = None

    def library(self, name: str) -> Path:
        """Build a file's kernels, once for each of its texts."""
        text = code(name)
        if self.mutation and self.mutation[0] == name:
            assert self.mutation[1] in text
            text = text.replace(*self.mutation[1:])
        for number, kernel in enumerate(KERNELS[name]):
            text += f"""
extern "C" const char* launch_{number}(const int* grid, const int* block, void** values, int order) {{
  return emulation::launch(&{kernel}, grid, block, values, order);
}}"""
        digest = hashlib.sha256(" ".join((*self.flags, text)).encode()).hexdigest()[:16]
        built = self.folder / f"{name}-{digest}.so"
        if not built.exists():
            source = built.with_suffix(".cc")
            source.write_text(text)
            command = ["g++", "-std=c++17", "-O1", "-w", "-shared", "-fPIC", *self.flags]
            subprocess.run([*command, str(source), "-o", str(built)], check=True)
        return built

    def launch(self, file, kernel, grid, block, *arguments) -> None:
        library = ctypes.CDLL(str(self.library(file)))
        function = library[f"launch_{KERNELS[file].index(kernel)}"]
        function.restype = ctypes.c_char_p
        held = [self._held(argument) for argument in arguments]
        values = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
        sizes = [(ctypes.c_int * 3)(*(*size, 1, 1)[:3]) for size in (grid, block)]
        problem = function(*sizes, values, self.order)
        assert problem is None, f"{kernel}: {problem.decode()}"

    @staticmethod
    def _held(argument):
        if isinstance(argument, torch.Tensor):
            assert not argument.is_cuda
            return ctypes.c_void_p(argument.data_ptr())
        if argument is None:
            return ctypes.c_void_p(0)
        return ctypes.c_int(argument) if isinstance(argument, int) else ctypes.c_float(argument)


def streaks(pictures: int, height: int, width: int, density: float, seed: int = 0) -> torch.Tensor:
    """A mask of slanted lines, bool [N, 1, H, W]."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((pictures, 1, height, width), dtype=bool)
    for picture in mask[:, 0]:
        while picture.mean() < density:
            y, x, length = rng.integers(height), rng.integers(width), rng.integers(3, 9)
            rows = y + np.arange(length)
            columns = x + np.arange(length) // 3
            keep = (rows < height) & (columns < width)
            picture[rows[keep], columns[keep]] = True
    return torch.from_numpy(mask)
