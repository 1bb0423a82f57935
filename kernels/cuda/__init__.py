"""The operators on NVIDIA GPUs: kernels in `*.cu`, compiled at run time by CuPy when they are first used.

`device` says whether they run here and launches them; `cells` and `lines` make the index; `sc`, `snl` and
`sfm` are the operators, in the arguments of their namesakes in `kernels.cpu`. CuPy is imported at a launch.
"""

from kernels.cuda import cells, device, lines, sc, sfm, snl

__all__ = ["cells", "device", "lines", "sc", "sfm", "snl"]
