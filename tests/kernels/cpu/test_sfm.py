"""SFM's form for CPUs against the plain reference in float64: values and gradients."""

import math

import pytest
import torch

from kernels import reference, sfm
from tests.kernels.samples import close, features_for


@pytest.mark.parametrize("guards", [(math.inf, 0.0), (1.1, 16.0)], ids=["by the letter", "guarded"])
def test_sfm_is_the_reference(mask, guards):
    max_ratio, fade = guards
    features = features_for(mask)
    a, b = (features.clone().requires_grad_() for _ in range(2))
    expected = reference.sfm(a, mask, eps=1e-3, max_ratio=max_ratio, fade=fade)
    got = sfm(b, mask, eps=1e-3, max_ratio=max_ratio, fade=fade)
    close(got, expected)
    upstream = torch.randn_like(expected)
    close(
        torch.autograd.grad((got * upstream).sum(), b)[0],
        torch.autograd.grad((expected * upstream).sum(), a)[0],
    )


def test_sfm_by_hand():
    features = torch.tensor([1.0, 3.0, 10.0, 30.0], dtype=torch.float64).view(1, 1, 2, 2)
    mask = torch.tensor([True, True, False, False]).view(1, 1, 2, 2)
    got = sfm(features, mask, eps=1e-12, max_ratio=math.inf, fade=0.0)
    # Degraded: mean 2, deviation 1. Clean: mean 20, deviation 10.
    close(got.flatten(), torch.tensor([10.0, 30.0, 10.0, 30.0], dtype=torch.float64))


def test_low_precision_keeps_its_statistics_in_float32(mask):
    low = features_for(mask).bfloat16() + 8  # far from zero, where bfloat16 has few steps
    got = sfm(low, mask, eps=1e-3, max_ratio=4.0, fade=16.0)
    exact = sfm(low.double(), mask, eps=1e-3, max_ratio=4.0, fade=16.0)
    assert got.dtype == torch.bfloat16
    assert ((got.double() - exact).abs() <= exact.abs() * torch.finfo(torch.bfloat16).eps).all()
