"""Fixtures of tests that hold models against one another."""

from dataclasses import replace

import pytest
import torch

from spair_core import weights
from spair_core.network import Spair


def half_marked(config, seed, photo):
    """A model that takes about half the pixels of a photograph for degraded."""
    torch.manual_seed(seed)
    model = Spair(config).eval()
    with torch.inference_mode():
        probability = model.locate(torch.tensor(photo).permute(2, 0, 1)[None] / 255).sigmoid()
    config = replace(config, binarize=float(probability.median()))
    return weights.save(model, weights.ModelCard(config, "rain", 0.05))


@pytest.fixture(scope="session")
def two_models(tiny_config, photos):
    return [half_marked(tiny_config, seed, photos[0][:40, :60]) for seed in (0, 1)]
