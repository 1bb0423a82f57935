"""The three operators whose cost follows the degraded area, and the index of pixels they share."""

from kernels.index import build_index, build_indices
from kernels.ops import sc_block, sfm, snl_step
from kernels.tables import ActiveIndex

__all__ = ["ActiveIndex", "build_index", "build_indices", "sc_block", "sfm", "snl_step"]
