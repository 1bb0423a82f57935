"""In what type a network restores: bfloat16 where the processor multiplies it faster, float32 elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16"]
"""What a flag --precision takes."""
Chosen = Literal["float32", "bfloat16"]
"""What it comes to on a machine."""

CAPABLE = (8, 0)
"""The compute capability from which GPUs multiply bfloat16."""
INSTRUCTIONS = {"avx512_bf16", "amx_tile"}
"""Those by which processors do, by Linux's names."""
CPU_INFO = Path("/proc/cpuinfo")


def chosen(precision: Precision, device: str | torch.device = "cpu") -> Chosen:
    """What `auto` is on this device; any other is itself. Of a processor it is said without torch."""
    if precision != "auto":
        return precision
    gpu = str(device).startswith("cuda")
    return "bfloat16" if (_gpu_has_bfloat16(device) if gpu else _processor_has_bfloat16()) else "float32"


def type_of(precision: Chosen) -> torch.dtype:
    """The type of the weights and features."""
    import torch  # takes seconds, for which flags and errors need not wait

    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def _gpu_has_bfloat16(device: str | torch.device) -> bool:
    import torch

    return torch.cuda.get_device_capability(device) >= CAPABLE


def _processor_has_bfloat16() -> bool:
    """By instructions of its own, as Linux lists them; where they are emulated float32 is faster.

    Where nothing is listed, the answer is no.
    """
    try:
        with CPU_INFO.open() as lines:  # a machine of hundreds of CPUs says the same of each of them
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return False
    return not INSTRUCTIONS.isdisjoint(flags.split())
