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
