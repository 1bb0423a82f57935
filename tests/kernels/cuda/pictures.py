"""Masks, features and weights that the CUDA kernels are run on."""

import numpy as np
import torch


def streaks(pictures: int, height: int, width: int, density: float, seed: int = 0) -> torch.Tensor:
    """A mask of slanted lines, bool [N, 1, H, W]."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((pictures, 1, height, width), dtype=bool)
    for picture in mask[:, 0]:
        while picture.mean() < density:
            y, x, length = rng.integers(height), rng.integers(width), rng.integers(3, 9)
            rows = y + np.arange(length)
            columns = x + np.arange(length) // 3
            keep = (rows < height) & (columns < width)
            picture[rows[keep], columns[keep]] = True
    return torch.from_numpy(mask)


MASKS = {
    "streaks": streaks(2, 19, 23, 0.25),
    "one pixel": torch.zeros(1, 1, 6, 5).index_fill_(3, torch.tensor(3), 1).bool() & torch.eye(6, 5).bool(),
    "noise": torch.rand(1, 1, 13, 40, generator=torch.Generator().manual_seed(0)) < 0.5,
    "half": torch.arange(40).expand(1, 1, 9, 40) < 20,
}


def noise(pictures: int, height: int, width: int, density: float) -> torch.Tensor:
    """A mask drawn cell by cell, bool [N, 1, H, W]."""
    return torch.rand(pictures, 1, height, width, generator=torch.Generator().manual_seed(3)) < density


INDEX_MASKS = {
    **MASKS,
    "empty": torch.zeros(2, 1, 7, 9, dtype=torch.bool),
    "full": torch.ones(2, 1, 7, 9, dtype=torch.bool),
    "one cell": torch.ones(1, 1, 1, 1, dtype=torch.bool),
    "one row": noise(1, 1, 75, 0.4),
    "one column": noise(1, 75, 1, 0.4),
    "all but one": torch.arange(40 * 50).view(1, 1, 40, 50) != 777,
    "full beside empty": torch.tensor([True, False]).view(2, 1, 1, 1).expand(2, 1, 8, 11),
    "several pictures": noise(5, 6, 10, 0.3),
    "as wide as a warp": noise(2, 32, 64, 0.5),
    "many blocks": streaks(1, 70, 95, 0.1),
    **{f"noise of {density}": noise(3, 37, 41, density) for density in (0.01, 0.1, 0.3, 0.6, 0.9, 0.99)},
}
"""More of them, small and odd ones, for the tables alone."""


def made_features(mask: torch.Tensor, channels: int, dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    n, _, height, width = mask.shape
    return torch.randn(n, channels, height, width, generator=generator).to(mask.device, dtype)


def block_parameters(channels: int, growth: int, layers: int, dtype: torch.dtype, device: str = "cpu"):
    """An SC block's weights, biases, last weight and last bias."""
    generator = torch.Generator().manual_seed(2)

    def make(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) / 4).to(device, dtype)

    weights = [make(growth, channels + i * growth, 3, 3) for i in range(layers)]
    return weights, [make(growth) for _ in range(layers)], make(16, channels + layers * growth), make(16)
