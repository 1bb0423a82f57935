"""Weights files as version 0.1.0 wrote them: every later version reads them as that one did."""

import hashlib

import pytest
import torch
from safetensors.torch import save

from spair_core import inference, weights
from spair_core.network import LocalizerConfig, NetworkConfig, RestorerConfig, Spair

HEADER = (
    '{"mask_threshold": 0.05, "network": {"binarize": 0.4, "localizer": {"channels": [8, 8, 8], '
    '"decoder_layers": [1, 1], "encoder_layers": [1, 1, 1], "growth": [4, 4, 4]}, "restorer": '
    '{"attention": "sparse", "channels": [8, 8, 8], "decoder": "sparse", "full_channels": 4, '
    '"growth": [4, 4, 4], "guarded": true, "layers": [1, 1, 1], "modulate": true, '
    '"sparse_growth": [4, 4, 4, 4]}}, "provenance": {"data": "train", "epochs": "1 + 2 joint"}, '
    '"task": "rain"}'
)
"""Letter for letter; what a later version adds to its headers is not added here."""
TENSORS = "b00a347bec2175f8e580227821809db97a8510e0fc25db4c471384395bd0e235"
"""SHA-256 of the names and shapes of such a network's tensors, a line each, in the order of the names."""


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(7)
    localizer = LocalizerConfig((8, 8, 8), (4, 4, 4), (1, 1, 1), (1, 1))
    restorer = RestorerConfig((8, 8, 8), (4, 4, 4), (1, 1, 1), full_channels=4, sparse_growth=(4, 4, 4, 4))
    return Spair(NetworkConfig(localizer, restorer)).eval()


def test_a_networks_tensors_have_the_names_and_shapes_they_had(model):
    lines = [f"{name} {list(value.shape)}" for name, value in sorted(model.state_dict().items())]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == TENSORS


def test_an_old_file_restores_as_the_model_it_was_saved_from(model, photos):
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    old = save(tensors, {"spair": HEADER})
    loaded, card = weights.load(old)
    assert (card.task, card.mask_threshold) == ("rain", 0.05)
    assert card.provenance == {"data": "train", "epochs": "1 + 2 joint"}
    assert weights.read_card(old) == card
    picture = photos[1][60:130, 100:190][None]
    before, after = (inference.restore(network, picture) for network in (model, loaded))
    assert before.mask.any()
    assert (before.mask == after.mask).all()
    assert (before.pixels == after.pixels).all()
    assert (after.pixels != picture).any()
