import pytest
import torch

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
    assert set(made.neighbours[:2].flatten().tolist()) <= {0, 1, 4}


def test_a_nearly_full_mask_needs_no_table():
    mask = torch.ones(1, 1, 10, 10, dtype=torch.bool)
    assert build_index(mask).neighbours.shape == (0, 9)


def test_chunks_hold_every_line_with_both_kinds_once(monkeypatch):
    monkeypatch.setattr(index, "CHUNK_SCORES", 20)
    mask = torch.rand(2, 1, 9, 7, generator=torch.Generator().manual_seed(2)) < 0.5
    made = build_index(mask)
    queries = torch.cat([chunk.flatten() for chunk in made.row_lines[::4]])
    queries = queries[queries < made.active.numel()]
    mixed = mask[:, 0].any(2) & (~mask[:, 0]).any(2)
    expected = int((mask[:, 0] & mixed[..., None]).sum())
    assert queries.unique().numel() == queries.numel() == expected
    assert len(made.row_lines) > 4


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
