"""Whether the CUDA kernels run here, and how one is launched: compiled at run time by CuPy.

They work on torch's tensors in place (no copies), in memory from torch's allocator and on torch's
current stream, so they can be captured in a CUDA graph. No sum is taken by atomics: the same input
gives the same bits. Types: float16 and bfloat16 on tensor cores (summed in float32), and float32.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
import torch
from torch import Tensor

TYPES = {torch.float16: "half_t", torch.bfloat16: "bfloat_t", torch.float32: "float"}

THREADS = 256
"""Of a block where each thread has work of its own."""


def source(name: str) -> str:
    """The whole code of `NAME.cu`, with what it shares with the others in front."""
    folder = resources.files(__package__)
    return "".join((folder / part).read_text() for part in ("device.cuh", "tile.cuh", f"{name}.cu"))


@lru_cache(maxsize=1)
def unavailable() -> str | None:
    """Why the kernels cannot run here, or None where they can."""
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed (pip install cupy-cuda13x)"
    if not torch.cuda.is_available():
        return "torch sees no NVIDIA GPU"
    if not hasattr(torch.cuda.Stream, "__cuda_stream__"):
        return "torch is older than 2.10 and cannot share its streams"
    if not hasattr(cupy.cuda.Stream, "from_external"):
        return "CuPy is older than 14 and cannot work on torch's streams"
    if cupy.cuda.runtime.runtimeGetVersion() < 12000:
        return "CuPy was built for a CUDA older than 12"
    if torch.cuda.get_device_capability() < (8, 0):
        return "the GPU is older than compute capability 8.0"
    return None


def serves(operator: str, rows: Tensor, widths: dict[int, int]) -> bool:
    """Whether the kernels take a call on these rows, whose `widths` (each with the most it may be) must be
    multiples of 8. Where they do not, says once why torch's form is used instead."""
    reason = unavailable()
    if reason is None and rows.dtype not in TYPES:
        reason = f"{rows.dtype} is not among {', '.join(str(known) for known in TYPES)}"
    if reason is None and any(width % 8 or width > most for width, most in widths.items()):
        reason = f"the widths {list(widths)} are not multiples of 8 up to {list(widths.values())}"
    if reason is not None:
        _say_once(f"{operator}: {reason}; using torch's form, which is slower")
    return reason is None and rows.numel() > 0


@lru_cache(maxsize=64)
def _say_once(words: str) -> None:
    logging.getLogger("spair.kernels").warning(words)


@lru_cache(maxsize=256)
def _function(file: str, kernel: str) -> Any:
    import cupy

    module = cupy.RawModule(code=source(file), options=("-std=c++17",), name_expressions=(kernel,))
    return module.get_function(kernel)


Argument = Tensor | int | float | None


def launch(
    file: str, kernel: str, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Argument
) -> None:
    """Queue a kernel of `FILE.cu` on torch's current stream; integers and floats are passed as 32 bits."""
    import cupy

    tensor = next(argument for argument in arguments if isinstance(argument, Tensor))
    with torch.cuda.device(tensor.device), cupy.cuda.Device(tensor.device.index):
        stream = cupy.cuda.Stream.from_external(torch.cuda.current_stream(tensor.device))
        with stream:
            _function(file, kernel)(grid, block, tuple(_passed(argument) for argument in arguments))


def _passed(argument: Argument) -> Any:
    if isinstance(argument, Tensor):
        return np.uint64(argument.data_ptr())
    if argument is None:
        return np.uint64(0)
    return np.int32(argument) if isinstance(argument, int) else np.float32(argument)
