import pickle

import pytest
import torch
from safetensors.torch import save

from spair_core import weights
from spair_core.weights import WeightsError


def test_a_model_and_its_card_come_back(tiny_weights, tiny_config):
    model, card = weights.load(tiny_weights)
    assert (card.network, card.task, card.mask_threshold) == (tiny_config, "rain", 0.05)
    assert card.provenance == {"from": "tests"}
    assert weights.save(model, card) == tiny_weights
    assert not model.training


def test_half_precision_halves_the_file(tiny_weights):
    model, card = weights.load(tiny_weights)
    half = weights.save(model, card, torch.float16)
    assert len(half) < 0.6 * len(tiny_weights)
    again, _ = weights.load(half)
    assert next(again.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a safetensors file"),
        (pickle.dumps({"a": 1}) * 9, "not a safetensors file"),
        (b"\xff" * 64, "not a safetensors file"),
        (save({"a": torch.zeros(2)}), "not one of SPAIR"),
        (save({"a": torch.zeros(2)}, {"spair": "{}"}), "another version"),
        (save({"a": torch.zeros(2)}, {"spair": "nonsense"}), "another version"),
    ],
)
def test_other_files_are_refused(data, words):
    with pytest.raises(WeightsError, match=words):
        weights.load(data)


def test_damaged_files_are_refused(tiny_weights):
    for look in (weights.load, weights.check):
        with pytest.raises(WeightsError, match="cut short"):
            look(tiny_weights[:-100])
    assert weights.check(tiny_weights) == weights.read_card(tiny_weights)
    _, card = weights.load(tiny_weights)
    with pytest.raises(WeightsError, match="do not fit"):
        weights.load(save({"a": torch.zeros(2)}, {"spair": card.to_json()}))


@pytest.mark.long
def test_every_shipped_model_loads():
    for name in weights.shipped_names():
        _, card = weights.load(weights.shipped(name))
        assert card.provenance
    with pytest.raises(WeightsError, match="no weights named"):
        weights.shipped("rain-huge")
