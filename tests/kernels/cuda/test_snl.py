"""SNL's kernels against dense attention: emulated in several thread orders, and natively."""

import pytest
import torch

from kernels import build_index, cuda
from tests.kernels.cuda.dense import check, dense_attention
from tests.kernels.cuda.pictures import MASKS, made_features
from tests.kernels.samples import rows_of


@pytest.mark.parametrize("channels", [8, 72])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_snl_and_its_gradients(mask, channels, dtype, device):
    check_snl(mask.to(device), channels, dtype)


def test_snl_of_wide_rows(device):
    check_snl(MASKS["streaks"].to(device), 256, torch.float32)


def check_snl(mask, channels, dtype):
    features = made_features(mask, channels, dtype)
    blend, upstream = made_features(mask, 4, dtype, seed=2), made_features(mask, channels, dtype, seed=3)
    made = build_index(mask)
    exact = dense_attention(features, mask, blend, upstream, made, torch.float64)
    plain = dense_attention(features, mask, blend, upstream, made, dtype)
    cells = rows_of(features)
    inputs = [cells[made.active], cells[made.clean], rows_of(blend)[made.active]]
    got = [cuda.snl.snl_step(*inputs, made.lines, 0.4)]
    got += cuda.snl.snl_step_backward(rows_of(upstream)[made.active], *inputs, made.lines, 0.4)
    for mine, theirs, torchs in zip(got, exact, plain, strict=True):
        check(mine, theirs, torchs, dtype)
    assert torch.equal(got[0] == 0, exact[0] == 0)  # an empty direction adds exactly nothing
