"""The index that the GPU makes is the one of torch."""

import pytest
import torch
import torch.nn.functional as F

from kernels import build_index, index
from tests.kernels.cuda.pictures import MASKS


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_the_index_is_the_one_of_torch(mask, device, monkeypatch):
    mask = mask.to(device)
    made = build_index(mask)
    monkeypatch.setattr(index, "_on_kernels", lambda _: False)
    plain = build_index(mask)
    n = made.active.numel()
    assert torch.equal(made.clean, plain.clean)
    assert torch.equal(made.active.sort()[0], plain.active.sort()[0])
    assert torch.equal(made.bands, plain.bands.sum(0, keepdim=True))
    assert made.neighbours.dtype == torch.int32
    where = F.pad(made.active, (0, 1), value=-1)[made.neighbours.long()]
    expected = F.pad(plain.active, (0, 1), value=-1)[plain.neighbours]
    assert torch.equal(where[made.active.argsort()], expected[plain.active.argsort()])
    # Cells with the same neighbours stand together.
    taps = (made.neighbours < n).cpu().int() @ (1 << torch.arange(9, dtype=torch.int32))
    assert int((taps[1:] != taps[:-1]).sum()) + 1 == taps.unique().numel()
