"""In what type a network restores: bfloat16 where the processor multiplies it faster, float32 elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16"]
"""What a flag --precision takes."""
Chosen = Literal["float32", "bfloat16"]
"""What it comes to on a machine."""

CAPABLE = (8, 0)
"""The compute capability from which GPUs multiply bfloat16."""


def chosen(precision: Precision, device: torch.device) -> Chosen:
    """What `auto` is on this device; any other is itself."""
    if precision != "auto":
        return precision
    has = _gpu_has_bfloat16 if device.type == "cuda" else _processor_has_bfloat16
    return "bfloat16" if has(device) else "float32"


def type_of(precision: Chosen) -> torch.dtype:
    """The type of the weights and features."""
    import torch  # takes seconds, for which flags and errors need not wait

    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def _gpu_has_bfloat16(device: torch.device) -> bool:
    import torch

    return torch.cuda.get_device_capability(device) >= CAPABLE


def _processor_has_bfloat16(_: torch.device) -> bool:
    """By instructions of its own (AVX512-BF16, AMX); where they are emulated float32 is faster.

    torch asks for them by functions that not all of its versions have; then the answer is no.
    """
    import torch

    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(ask() for ask in asked if ask)
