"""Which types are too narrow to sum in."""

import torch

LOW_PRECISION = (torch.float16, torch.bfloat16)
"""Types in which SNL's masks and SFM's statistics cannot be held: these work in float32 inside."""
