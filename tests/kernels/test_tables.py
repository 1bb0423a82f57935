from dataclasses import replace

import pytest
import torch

from kernels import build_index


def test_tables_of_another_mask_are_refused():
    made = build_index(torch.rand(1, 1, 9, 7, generator=torch.Generator().manual_seed(2)) < 0.5)
    with pytest.raises(ValueError, match="neighbours holds"):
        replace(made, neighbours=made.neighbours + 1)
    with pytest.raises(ValueError, match="use build_index"):
        replace(made, active=made.active[1:])
    with pytest.raises(ValueError, match="use build_index"):
        replace(made, bands=made.bands + 1)
