"""The fast forms of the operators for CPUs, forward and backward, in torch's own operations.

`sc`, `snl` and `sfm` give what `kernels.reference` defines. Being plain torch they also run, less fast,
on other devices: there they serve what the kernels of `kernels.cuda` do not take.
"""

from kernels.cpu import sc, sfm, snl

__all__ = ["sc", "sfm", "snl"]
