"""The index that the GPU makes is the one of torch."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import build_index, build_indices, index
from kernels.cuda import cells
from kernels.cuda import device as cuda_device
from spair_core.network import coarsen
from tests.kernels.cuda.line_tables import each_line_alone
from tests.kernels.cuda.pictures import INDEX_MASKS, noise


@pytest.mark.parametrize("mask", INDEX_MASKS.values(), ids=INDEX_MASKS)
def test_the_index_is_the_one_of_torch(mask, device, monkeypatch):
    mask = mask.to(device)
    made = build_index(mask)
    monkeypatch.setattr(index, "_on_kernels", lambda _: False)
    plain = build_index(mask)
    n = made.active.numel()
    assert torch.equal(made.clean, plain.clean)
    assert torch.equal(made.active.sort()[0], plain.active.sort()[0])
    assert torch.equal(made.bands, plain.bands.sum(0, keepdim=True))
    assert len(made.neighbours) == len(plain.neighbours)
    if not len(made.neighbours):
        return
    assert made.neighbours.dtype == torch.int32
    where = F.pad(made.active, (0, 1), value=-1)[made.neighbours.long()]
    expected = F.pad(plain.active, (0, 1), value=-1)[plain.neighbours]
    assert torch.equal(where[made.active.argsort()], expected[plain.active.argsort()])
    # Cells with the same neighbours stand together.
    taps = (made.neighbours < n).cpu().int() @ (1 << torch.arange(9, dtype=torch.int32))
    assert int((taps[1:] != taps[:-1]).sum()) + 1 == taps.unique().numel()


@pytest.mark.parametrize("mask", INDEX_MASKS.values(), ids=INDEX_MASKS)
def test_cells_are_sorted_by_their_neighbours_and_ascend(mask, device):
    mask = mask.to(device)
    marked = mask[:, 0].contiguous()
    ends = cells.count(marked)
    active, clean, numbers, bands = cells.place(marked, ends, ends[:, -1].tolist())
    there = F.pad(marked, (1, 1, 1, 1)).long()
    height, width = mask.shape[2:]
    taps = sum(
        there[:, tap // 3 : tap // 3 + height, tap % 3 : tap % 3 + width] << tap for tap in range(9)
    ).flatten()[active]
    previous, following = (taps & 0o111) > 0, (taps & 0o444) > 0
    group = torch.where(following, previous.long(), 3 - previous.long())
    assert bands.tolist() == [group.bincount(minlength=4).tolist()]
    assert (group.diff() >= 0).all()
    same = taps[1:] == taps[:-1]
    assert (active.diff()[same] > 0).all()
    assert torch.equal(numbers[active], torch.arange(len(active), device=device, dtype=torch.int32))
    assert torch.equal(numbers[clean], torch.arange(len(clean), device=device, dtype=torch.int32))


@pytest.mark.parametrize("mask", INDEX_MASKS.values(), ids=INDEX_MASKS)
def test_the_line_tables_are_those_of_torch(mask, device):
    made = build_index(mask.to(device))
    expected = each_line_alone(made.mask, made.active, made.clean)
    for name, table, wanted in zip(expected._fields, made.lines, expected, strict=True):
        assert table.dtype == wanted.dtype, name
        assert torch.equal(table, wanted), name


def test_indices_made_together_are_those_made_one_by_one(device):
    masks = coarsen(noise(2, 40, 56, 0.06).to(device))
    together = build_indices(masks, non_local=[False, True, True, False])
    for mask, made, non_local in zip(masks, together, [False, True, True, False], strict=True):
        alone = build_index(mask, non_local=non_local)
        assert torch.equal(made.active, alone.active)
        assert torch.equal(made.clean, alone.clean)
        assert torch.equal(made.neighbours, alone.neighbours)
        assert torch.equal(made.bands, alone.bands)
        assert (made.lines is None) == (not non_local)
        assert all(map(torch.equal, made.lines or (), alone.lines or ()))


VIEWS = {
    "empty",
    "view",
    "slice",
    "select",
    "split_with_sizes",
    "split",
    "contiguous",
    "lift_fresh",
    "detach",
}


class Operations(TorchDispatchMode):
    """The names of torch's operations that would be launches or copies on a GPU."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation._schema.name.removeprefix("aten::")
        if name not in VIEWS:
            self.names.append(name)
        return operation(*args, **(kwargs or {}))


def test_an_index_takes_few_launches(emulator, monkeypatch):
    """Those of torch beside the kernels are scans, and what brings all sizes together for the host."""
    launches = []
    monkeypatch.setattr(
        cuda_device,
        "launch",
        lambda *arguments: launches.append(arguments[1]) or emulator.launch(*arguments),
    )
    masks = coarsen(noise(2, 40, 56, 0.06))
    with Operations() as operations:
        build_indices(masks, non_local=[False, True, True, True])
    assert sorted(operations.names) == ["cat"] + 7 * ["cumsum"]
    assert len(launches) == 4 * 3 + 3 * 2
