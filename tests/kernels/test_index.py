import pytest
import torch
import torch.nn.functional as F

from kernels import build_index, index


def test_neighbours_of_a_hand_drawn_mask():
    mask = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 1]], dtype=torch.bool).view(1, 1, 3, 3)
    made = build_index(mask)
    assert made.active.tolist() == [0, 1, 8]
    assert made.clean.tolist() == [2, 3, 4, 5, 6, 7]
    n = 3
    assert made.neighbours.tolist() == [
        [n, n, n, n, 0, 1, n, n, n],
        [n, n, n, 0, 1, n, n, n, n],
        [n, n, n, n, 2, n, n, n, n],
    ]


def test_the_table_is_symmetric():
    made = build_index(torch.rand(2, 1, 11, 13, generator=torch.Generator().manual_seed(1)) < 0.4)
    n = made.active.numel()
    for p, window in enumerate(made.neighbours.tolist()):
        for k, q in enumerate(window):
            assert q == n or made.neighbours[q, 8 - k] == p


def test_pictures_of_a_batch_do_not_touch():
    mask = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
    mask[0, 0, 1], mask[1, 0, 0] = True, True
    made = build_index(mask)
    for cell, window in zip(made.active.tolist(), made.neighbours.tolist(), strict=True):
        assert {int(made.active[q]) // 4 for q in window if q < 4} == {cell // 4}


def test_the_rows_of_a_band_that_an_outer_column_of_taps_can_serve_are_one_range(monkeypatch):
    monkeypatch.setattr(index, "BAND_CELLS", 16)
    made = build_index(torch.rand(2, 1, 11, 13, generator=torch.Generator().manual_seed(1)) < 0.4)
    n = made.active.numel()
    assert len(made.bands) > 4
    assert int(made.bands.sum()) == n
    window = made.neighbours.view(n, 3, 3) < n
    # A cell serves the left tap of the cell on its right, the right tap of the one on its left.
    serves_left, serves_right = window[:, :, 2].any(1), window[:, :, 0].any(1)
    groups = torch.tensor([[True, False], [True, True], [False, True], [False, False]])
    expected = groups.repeat(len(made.bands), 1).repeat_interleave(made.bands.view(-1), 0)
    assert torch.equal(torch.stack([serves_left, serves_right], 1), expected)


@pytest.mark.parametrize("cells", [1, 8, 40])
def test_neighbours_are_in_bands_next_to_one_another(cells, monkeypatch):
    monkeypatch.setattr(index, "BAND_CELLS", cells)
    mask = torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(5)) < 0.5
    mask[0, 0, 3] = True  # one row holds more than most bands
    mask[0, 0, 4:7] = False
    made = build_index(mask)
    band = torch.arange(len(made.bands)).repeat_interleave(made.bands.sum(1))
    there = made.neighbours < made.active.numel()
    apart = F.pad(band, (0, 1))[made.neighbours] - band[:, None]
    assert apart[there].abs().max() == 1
    assert (band[1:] >= band[:-1]).all()


def test_a_nearly_full_mask_needs_no_table():
    mask = torch.ones(1, 1, 10, 10, dtype=torch.bool)
    assert build_index(mask).neighbours.shape == (0, 9)


def test_line_tables_hold_every_cell_of_a_line_with_both_kinds_once(monkeypatch):
    monkeypatch.setattr(index, "CHUNK_SCORES", 20)
    mask = torch.rand(2, 1, 9, 7, generator=torch.Generator().manual_seed(2)) < 0.5
    made = build_index(mask)
    lines, n = made.lines, made.active.numel()
    for axis, across in enumerate((2, 1)):
        mixed = (mask[:, 0].any(across) & (~mask[:, 0]).any(across)).unsqueeze(across)
        slots = lines.query_slots[:, axis]
        has_slot = (mask[:, 0] & mixed).view(-1)[made.active]
        assert torch.equal(slots < lines.query_at.numel(), has_slot)
        assert torch.equal(lines.query_at[slots[has_slot]], torch.arange(n)[has_slot])
        has_key = (~mask[:, 0] & mixed).view(-1)[made.clean]
        keys = lines.key_slots[:, axis][has_key]
        assert torch.equal(lines.key_at[keys], torch.arange(made.clean.numel())[has_key])
    assert len(lines.chunks) > 4
    of_column = torch.zeros(lines.query_at.numel() + 1, dtype=torch.long)
    of_column[lines.query_slots[:, 1]] = 1
    assert torch.equal(lines.pairs, 2 * lines.query_at + of_column[:-1])


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (torch.zeros(1, 1, 4, 4), TypeError, "boolean"),
        (torch.zeros(4, 4, dtype=torch.bool), ValueError, "N x 1 x H x W"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.bool), ValueError, "N x 1 x H x W"),
    ],
)
def test_other_masks_are_refused(mask, error, words):
    with pytest.raises(error, match=words):
        build_index(mask)


def test_bands_are_twice_as_large_where_features_take_half_the_bytes(monkeypatch):
    monkeypatch.setattr(index, "BAND_CELLS", 16)
    mask = torch.rand(1, 1, 24, 31, generator=torch.Generator().manual_seed(2)) < 0.4
    bands = [len(build_index(mask, dtype=dtype).bands) for dtype in (torch.float32, torch.bfloat16)]
    assert bands[1] < bands[0]
    assert len(build_index(mask, dtype=torch.float64).bands) == bands[0]
