"""Runs the CUDA kernels on the CPU, through the emulation in `emulation/device.cuh`."""

import ctypes
import subprocess
from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch

from kernels.cuda import device
from tests.kernels.cuda import builds

TYPES = ("half_t", "bfloat_t", "float")
ORDERS = {"forward": 0, "backward": 1, "random": 7}
"""In which threads take turns: any number but 0 and 1 is the seed of a random one."""


def instances(
    kinds: Sequence[str] = TYPES, tiles: Sequence[int] = (1,), channels: Sequence[int] = (8,)
) -> dict[str, list[str]]:
    """The kernels of each file: SC's of layers that give 8*tiles channels, SNL's of rows of `channels`."""
    sfm = [f"sfm_{kernel}" for kernel in ("moments", "apply", "grad_sums", "grad_apply")]
    snl = [f"snl_{kernel}" for kernel in ("forward", "query_grad", "key_grad")]
    return {
        "cells": ["count_cells", "compact_cells", "neighbour_table"],
        "lines": ["count_lines", "fill_lines"],
        "sc": [f"sc_product<{kind}, 8, false>" for kind in kinds]
        + [f"sc_product<{kind}, {tile}, true>" for kind, tile in product(kinds, tiles)]
        + [f"sc_weight_grad<{kind}, {tile}>" for kind, tile in product(kinds, tiles)],
        "snl": [f"{kernel}<{kind}, {width}>" for kernel, kind, width in product(snl, kinds, channels)],
        "sfm": ["sfm_statistics", "sfm_grad_coefficients"]
        + [f"{kernel}<{kind}>" for kernel, kind in product(sfm, kinds)],
    }


class Mutation(NamedTuple):
    """A change of a kernel file: what stands in it, and what is to stand there instead.

    Kernels whose names do not start with `kernel` run as they are.
    """

    file: str
    old: str
    new: str
    kernel: str = ""

    def touches(self, file: str, kernel: str) -> bool:
        return file == self.file and kernel.startswith(self.kernel)


def code(name: str) -> str:
    """A kernel file with the emulation in place of device.cuh."""
    parts = [Path(__file__).parent / "emulation" / "device.cuh"]
    parts += [Path(device.__file__).parent / part for part in ("tile.cuh", f"{name}.cu")]
    return "".join(part.read_text() for part in parts)


@cache
def compiler() -> str:
    """The version of g++, in its words."""
    return subprocess.run(["g++", "--version"], check=True, capture_output=True, text=True).stdout


class Emulator:
    """Stands in for `kernels.cuda.device.launch`, for these `kernels`; builds with more `flags` of g++.

    `order` of threads: one of ORDERS, or another seed. `mutation`: what is changed in the kernels.
    """

    def __init__(self, kernels: dict[str, list[str]], *flags: str) -> None:
        self.kernels, self.flags = kernels, ("-std=c++17", "-O1", "-w", "-shared", "-fPIC", *flags)
        self.order = 0
        self.mutation: Mutation | None = None
        self._functions: dict[tuple[str, Mutation | None], dict[str, ctypes._CFuncPtr]] = {}

    def functions(self, file: str, mutation: Mutation | None = None) -> dict[str, ctypes._CFuncPtr]:
        """What launches each kernel of a file; builds them together where they are not built yet."""
        if (file, mutation) not in self._functions:
            kernels = [name for name in self.kernels[file] if not mutation or mutation.touches(file, name)]
            library = ctypes.CDLL(str(self._library(file, kernels, mutation)))
            functions = {kernel: library[f"launch_{number}"] for number, kernel in enumerate(kernels)}
            for function in functions.values():
                function.restype = ctypes.c_char_p
            self._functions[file, mutation] = functions
        return self._functions[file, mutation]

    def _library(self, file: str, kernels: list[str], mutation: Mutation | None) -> Path:
        text = code(file)
        if mutation:
            assert mutation.old in text
            text = text.replace(mutation.old, mutation.new)
        for number, kernel in enumerate(kernels):
            text += f"""
extern "C" const char* launch_{number}(const int* grid, const int* block, void** values, int order) {{
  return emulation::launch(&{kernel}, grid, block, values, order);
}}"""

        def build(made: Path) -> None:
            source = made.with_suffix(".cc")
            source.write_text(text)
            subprocess.run(["g++", *self.flags, str(source), "-o", str(made)], check=True)

        return builds.kept(f"{file}.so", [compiler(), *self.flags, text], build)

    def launch(self, file, kernel, grid, block, *arguments) -> None:
        changed = self.mutation is not None and self.mutation.touches(file, kernel)
        function = self.functions(file, self.mutation if changed else None)[kernel]
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
