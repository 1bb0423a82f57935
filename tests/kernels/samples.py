"""Masks with every edge case, features and weights that the operators are run on, in float64."""

import torch

C, G, LAYERS, OUT = 5, 3, 3, 4


def rows_of(features):
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def random_mask(n, h, w, density, seed=0):
    return torch.rand(n, 1, h, w, generator=torch.Generator().manual_seed(seed)) < density


def one_pixel():
    mask = torch.zeros(1, 1, 6, 5, dtype=torch.bool)
    mask[0, 0, 2, 3] = True
    return mask


def mixed_batch():
    return torch.cat(
        [random_mask(1, 6, 7, 0.4), torch.zeros(1, 1, 6, 7).bool(), torch.ones(1, 1, 6, 7).bool()]
    )


def one_full_one_empty():
    return torch.stack([torch.ones(1, 6, 7).bool(), torch.zeros(1, 6, 7).bool()])


def half_plane():
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    mask[..., :3] = True  # nothing clean to the left, and nothing above or below
    return mask


MASKS = {
    "empty": torch.zeros(2, 1, 5, 6, dtype=torch.bool),
    "full": torch.ones(1, 1, 5, 6, dtype=torch.bool),
    "one pixel": one_pixel(),
    "one row": random_mask(1, 1, 17, 0.5),
    "one column": random_mask(1, 13, 1, 0.5),
    "odd": random_mask(2, 9, 7, 0.3),
    "dense form": random_mask(1, 9, 7, 0.9),
    "mixed batch": mixed_batch(),
    "no line with both": one_full_one_empty(),
    "no clean direction": half_plane(),
}


def features_for(mask, seed=1):
    torch.manual_seed(seed)
    n, _, h, w = mask.shape
    return torch.randn(n, C, h, w, dtype=torch.float64)


def block_parameters():
    torch.manual_seed(2)

    def make(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    weights = [make(G, C + i * G, 3, 3) for i in range(LAYERS)]
    return weights, [make(G) for _ in range(LAYERS)], make(OUT, C + LAYERS * G), make(OUT)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
