import copy

import pytest
import torch

from spair_core.learning import Batch, Learner, LearningConfig
from spair_core.network import Spair


@pytest.fixture
def batch():
    torch.manual_seed(0)
    clean = torch.rand(2, 3, 16, 16)
    mask = (torch.rand(2, 1, 16, 16) < 0.3).float()
    return Batch((clean + 0.4 * mask).clamp(0, 1), clean, mask)


def snapshot(module):
    return [p.detach().clone() for p in module.parameters()]


def moved(before, module):
    return any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize(
    ("phase", "localizer", "restorer"),
    [("localize", True, False), ("restore", False, True), ("joint", True, True)],
)
def test_each_phase_moves_what_it_should(tiny_config, batch, phase, localizer, restorer):
    model = Spair(tiny_config)
    learner = Learner(model, phase, LearningConfig(learning_rate=1e-2))
    before = snapshot(model.localizer), snapshot(model.restorer)
    values = learner.step(batch, 1e-2)
    assert values["loss"] > 0
    assert moved(before[0], model.localizer) == localizer
    assert moved(before[1], model.restorer) == restorer


def test_the_loss_falls(tiny_config, batch):
    torch.manual_seed(1)
    learner = Learner(Spair(tiny_config), "localize", LearningConfig())
    losses = [learner.step(batch, 1e-2)["loss"] for _ in range(40)]
    assert losses[-1] < 0.9 * losses[0]


def test_a_resumed_learner_goes_on_bit_for_bit(tiny_config, batch):
    def learner():
        torch.manual_seed(2)
        return Learner(Spair(tiny_config), "joint", LearningConfig(ema=0.9))

    unbroken = learner()
    for _ in range(2):
        unbroken.step(batch, 1e-3)
    resumed = learner()
    resumed.load_state_dict(copy.deepcopy(unbroken.state_dict()))
    assert unbroken.step(batch, 1e-3) == resumed.step(batch, 1e-3)
    for a, b in zip(unbroken.best.parameters(), resumed.best.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_average_trails_the_model(tiny_config, batch):
    learner = Learner(Spair(tiny_config), "joint", LearningConfig(ema=0.99))
    for _ in range(3):
        learner.step(batch, 1e-2)
    assert moved(snapshot(learner.best), learner.model)


def test_schedules():
    halving = LearningConfig(learning_rate=1.0, halve_every=50)
    assert [halving.rate(e, 200) for e in (0, 49.9, 50, 120)] == [1, 1, 0.5, 0.25]
    tail = LearningConfig(learning_rate=1.0, schedule="tail", tail_share=0.5)
    assert [tail.rate(e, 10) for e in (0, 5, 7.5, 10)] == [1, 1, 0.5, 0]


def test_a_loss_that_is_not_finite_stops(tiny_config, batch):
    model = Spair(tiny_config)
    learner = Learner(model, "joint", LearningConfig())
    before = snapshot(model)
    with pytest.raises(FloatingPointError, match="not finite"):
        learner.step(Batch(batch.degraded * float("nan"), batch.clean, batch.mask), 1e-3)
    assert not moved(before, model)
