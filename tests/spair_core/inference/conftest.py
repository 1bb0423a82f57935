from dataclasses import replace

import pytest
import torch

from spair_core import weights
from spair_core.network import Spair


@pytest.fixture(scope="module")
def model(tiny_weights):
    return weights.load(tiny_weights)[0]


@pytest.fixture(scope="module")
def footage_model(tiny_config):
    torch.manual_seed(2)
    config = replace(tiny_config, references=True, localizer=replace(tiny_config.localizer, squeeze=True))
    model = Spair(config).eval()
    for excite in model.localizer.excite:
        torch.nn.init.normal_(excite.excite.weight, std=0.5)
    return model
