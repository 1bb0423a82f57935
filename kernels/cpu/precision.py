"""What the types of fewer bits ask for."""

import torch
from torch import Tensor

LOW_PRECISION = (torch.float16, torch.bfloat16)
"""Types in which SNL's masks and SFM's statistics cannot be held: these work in float32 inside."""

STEPS = (128, 512)
"""What their products' rows are rounded up to: the first up to WIDE of them, the second beyond."""
WIDE = 1024


def summing(dtype: torch.dtype) -> torch.dtype:
    """The type to sum in."""
    return torch.float32 if dtype in LOW_PRECISION else dtype


def evened(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """By how many rows to multiply where so many are wanted.

    oneDNN, which multiplies what is in low precision, compiles a program for every shape (0.7 ms, as long as
    twenty such products take) and remembers a thousand. float32 and float64 do without.
    """
    if dtype not in LOW_PRECISION:
        return counts
    small, large = ((counts + step - 1) // step * step for step in STEPS)
    return torch.where(counts > WIDE, large, small)
