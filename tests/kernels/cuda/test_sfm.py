"""SFM's kernels against the CPU's form in float64: emulated in several thread orders, and natively."""

import pytest
import torch

from kernels import cpu, cuda
from tests.kernels.cuda.dense import check
from tests.kernels.cuda.pictures import MASKS, made_features


@pytest.mark.parametrize("mask", [*MASKS.values(), torch.zeros(1, 1, 4, 5).bool()], ids=[*MASKS, "empty"])
def test_sfm_and_its_gradient(mask, dtype, device):
    mask = mask.to(device)
    features = (3 * made_features(mask, 40, torch.float32) + 20).to(dtype)
    upstream = made_features(mask, 40, dtype, seed=3)
    guards = (1e-3, 1.3, 4.0)
    exact, statistics = cpu.sfm.sfm(features.double(), mask, *guards)
    exact_grad = cpu.sfm.sfm_backward(upstream.double(), features.double(), mask, statistics, 4.0)
    plain, plain_statistics = cpu.sfm.sfm(features, mask, *guards)
    plain_grad = cpu.sfm.sfm_backward(upstream, features, mask, plain_statistics, 4.0)
    out, mine = cuda.sfm.sfm(features, mask, *guards)
    check(out, exact, plain, dtype)
    check(cuda.sfm.sfm_backward(upstream, features, mask, mine, 4.0), exact_grad, plain_grad, dtype)
