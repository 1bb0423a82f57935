"""PSNR, SSIM, errors in CIE Lab and mask scores in float64, exactly as the field's tables compute them.

Rain streaks and raindrops are judged on Y of YCbCr (BT.601 with the 16-235 range that MATLAB's
rgb2ycbcr gives, not rounded), deblurring on RGB, shadows in CIE Lab. SSIM takes an 11x11 Gaussian
window of deviation 1.5, K1 = 0.01, K2 = 0.03, and only windows that lie within the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PEAK = 255.0
WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03
LUMA = np.array([65.481, 128.553, 24.966]) / 255

XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
"""Linear sRGB to CIE XYZ (ITU-R BT.709 primaries)."""
WHITE = np.array([0.95047, 1.0, 1.08883])
"""D65, 2 degrees, in XYZ."""
CODES = np.arange(256) / PEAK
LINEAR = np.where(CODES > 0.04045, ((CODES + 0.055) / 1.055) ** 2.4, CODES / 12.92)
"""Linear light of each 8-bit sRGB value."""
LAB_SIDE = 256
"""Shadow removal is judged on pictures of this height and width."""
REGIONS = ("S", "NS", "all")
"""Shadow, the rest, and both."""


def luma(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Y in [16, 235], float64 [H, W], of uint8 [H, W, 3]. Raises ValueError for another shape or dtype."""
    _check_rgb(rgb)
    return np.asarray(rgb.astype(np.float64) @ LUMA + 16)


def psnr(a: NDArray, b: NDArray) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255; infinite for equal pictures.

    Raises ValueError where the shapes differ or there are no pixels.
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


def lab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """CIE L*a*b* (D65), float64 [H, W, 3], of sRGB uint8 [H, W, 3], as scikit-image's rgb2lab gives it.

    Raises ValueError for another shape or dtype.
    """
    _check_rgb(rgb)
    ratio = LINEAR[rgb] @ XYZ.T / WHITE
    x, y, z = np.moveaxis(np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def lab_sums(
    restored: NDArray[np.uint8], clean: NDArray[np.uint8], shadow: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """What a picture adds to the errors of its set: float64 [3 regions, 3], for `lab_errors`.

    A row of REGIONS holds the sums over its pixels of |dL| + |da| + |db| and of dL^2 + da^2 + db^2,
    and their number. `restored` and `clean` are uint8 [H, W, 3], `shadow` is bool [H, W]; all are
    first resized to 256 x 256 (bicubic, in 8 bits), where any trace of the mask counts as shadow.
    Raises ValueError where the shapes differ.
    """
    _check(restored, clean)
    _check_rgb(restored)
    _check_rgb(clean)
    _check(shadow, clean[..., 0])
    a, b = (lab(_at_lab_side(picture)) for picture in (restored, clean))
    within = _at_lab_side(shadow.astype(np.uint8) * 255) > 0
    size, square = np.abs(a - b).sum(axis=2), ((a - b) ** 2).sum(axis=2)
    regions = (within, ~within, np.ones_like(within))
    return np.array([[size[r].sum(), square[r].sum(), r.sum()] for r in regions])


@dataclass(frozen=True)
class LabErrors:
    """Errors in CIE Lab by region (S, NS, all), over the pixels of all pictures of a set taken together.

    `mae` is the mean of |dL| + |da| + |db|: what the field's tables print as "RMSE". `rmse` is the
    root of the mean of dL^2 + da^2 + db^2, which deserves the name. NaN for a region without pixels.
    """

    mae: dict[str, float]
    rmse: dict[str, float]


def lab_errors(sums: NDArray[np.float64]) -> LabErrors:
    """The errors behind sums that `lab_sums` gave, of one picture or added up over many."""
    means = [(a / n, q / n) if n else (math.nan, math.nan) for a, q, n in sums.tolist()]
    return LabErrors(
        {region: size for region, (size, _) in zip(REGIONS, means, strict=True)},
        {region: math.sqrt(square) for region, (_, square) in zip(REGIONS, means, strict=True)},
    )


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
    """The paper's relative reduction of DSSIM = (1 - SSIM) / 2; NaN where there was none to reduce."""
    if ssim_before == 1:
        return math.nan
    return 1 - (1 - ssim_after) / (1 - ssim_before)


def _check(a: NDArray, b: NDArray) -> None:
    if a.shape != b.shape:
        raise ValueError(f"the pictures differ in size: {a.shape} and {b.shape}")
    if a.size == 0:
        raise ValueError(f"a picture without pixels cannot be judged: {a.shape}")


def _check_rgb(rgb: NDArray) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"the picture must be RGB, uint8 [H, W, 3], not {rgb.dtype} {list(rgb.shape)}")


def _at_lab_side(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    resized = Image.fromarray(picture).resize((LAB_SIDE, LAB_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def _blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Gaussian-weighted mean of every window within the picture; rows first, then columns."""
    reach = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-0.5 * (reach / SIGMA) ** 2)
    window /= window.sum()
    height, width = values.shape[0] - WINDOW + 1, values.shape[1] - WINDOW + 1
    rows = sum(weight * values[i : i + height] for i, weight in enumerate(window))
    return np.asarray(sum(weight * rows[:, i : i + width] for i, weight in enumerate(window)))
