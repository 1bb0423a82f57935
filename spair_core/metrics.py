"""PSNR, SSIM and mask scores in float64, exactly as the field's tables compute them.

Rain streaks and raindrops are judged on Y of YCbCr (BT.601 with the 16-235 range that MATLAB's
rgb2ycbcr gives, not rounded), deblurring on RGB. SSIM takes an 11x11 Gaussian window of deviation
1.5, K1 = 0.01, K2 = 0.03, and only windows that lie within the picture.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

PEAK = 255.0
WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03
LUMA = np.array([65.481, 128.553, 24.966]) / 255


def luma(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Y in [16, 235], float64 [H, W], of uint8 [H, W, 3]."""
    return np.asarray(rgb.astype(np.float64) @ LUMA + 16)


def psnr(a: NDArray, b: NDArray) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255; infinite for equal pictures.

    Raises ValueError where the shapes differ.
    """
    _check(a, b)
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def ssim(a: NDArray, b: NDArray) -> float:
    """Structural similarity of [H, W] or [H, W, C] (the mean over channels) with a range of 255.

    Raises ValueError where the shapes differ or a side is shorter than the window.
    """
    _check(a, b)
    if min(a.shape[:2]) < WINDOW:
        raise ValueError(f"SSIM needs at least {WINDOW}x{WINDOW} pixels, not {a.shape[1]}x{a.shape[0]}")
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x, var_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    score = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(score / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))))


def psnr_y(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """PSNR on Y of two uint8 RGB pictures."""
    return psnr(luma(a), luma(b))


def ssim_y(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """SSIM on Y of two uint8 RGB pictures."""
    return ssim(luma(a), luma(b))


def mask_scores(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> tuple[float, float]:
    """Precision and recall of a mask; 1 where there was nothing to get wrong."""
    _check(predicted, true)
    hits = int((predicted & true).sum())
    found, wanted = int(predicted.sum()), int(true.sum())
    return (hits / found if found else 1.0), (hits / wanted if wanted else 1.0)


def error_reduction(psnr_before: float, psnr_after: float) -> float:
    """The paper's relative reduction of RMSE ~ sqrt(10^(-PSNR/10)): 0.1 is 10 % less error."""
    return 1 - math.sqrt(10 ** ((psnr_before - psnr_after) / 10))


def dissimilarity_reduction(ssim_before: float, ssim_after: float) -> float:
    """The paper's relative reduction of DSSIM = (1 - SSIM) / 2."""
    return 1 - (1 - ssim_after) / (1 - ssim_before)


def _check(a: NDArray, b: NDArray) -> None:
    if a.shape != b.shape:
        raise ValueError(f"the pictures differ in size: {a.shape} and {b.shape}")


def _blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Gaussian-weighted mean of every window within the picture; rows first, then columns."""
    reach = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-0.5 * (reach / SIGMA) ** 2)
    window /= window.sum()
    height, width = values.shape[0] - WINDOW + 1, values.shape[1] - WINDOW + 1
    rows = sum(weight * values[i : i + height] for i, weight in enumerate(window))
    return np.asarray(sum(weight * rows[:, i : i + width] for i, weight in enumerate(window)))
