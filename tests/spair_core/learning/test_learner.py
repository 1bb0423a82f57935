import copy

import numpy as np
import pytest
import torch

from spair_core.degradations.crops import Example, degrade
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
    a, b = (
        {k: v for k, v in run.step(batch, 1e-3).items() if "seconds" not in k} for run in (unbroken, resumed)
    )
    assert a == b
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
    cosine = LearningConfig(learning_rate=1.0, schedule="cosine")
    assert [cosine.rate(e, 10) for e in (0, 5, 10)] == pytest.approx([1, 0.5, 0])
    tail = LearningConfig(learning_rate=1.0, schedule="tail", tail_share=0.5)
    assert [tail.rate(e, 10) for e in (0, 5, 7.5, 10)] == [1, 1, 0.5, 0]


def test_a_loss_that_is_not_finite_stops(tiny_config, batch):
    model = Spair(tiny_config)
    learner = Learner(model, "joint", LearningConfig())
    before = snapshot(model)
    with pytest.raises(FloatingPointError, match="not finite"):
        learner.step(Batch(batch.degraded * float("nan"), batch.clean, batch.mask), 1e-3)
    assert not moved(before, model)


GOLDEN = [
    0.68147,
    0.65299,
    0.54844,
    0.47173,
    0.40282,
    0.24785,
    0.27718,
    0.14972,
    0.10549,
    0.10394,
    0.096843,
    0.086294,
]
"""Losses of `test_the_golden_run`: Net_L, then both networks. Whoever changes the arithmetic of learning
sees it here; a change that is meant replaces them."""


def test_the_golden_run(tiny_config):
    torch.manual_seed(7)
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:24, :24]
    scene = np.stack([128 + 90 * np.sin(x / k) * np.cos(y / (k + 2)) for k in (3, 5, 9)], 2).astype(np.uint8)
    examples = [degrade(Example(None, scene), rng, "rain") for _ in range(6)]
    model, losses = Spair(tiny_config), []
    for phase in ("localize", "joint"):
        learner = Learner(model, phase, LearningConfig(clip=1.0, ema=0.9))
        losses += [learner.step(made(example), 5e-3)["loss"] for example in examples]
    assert losses == pytest.approx(GOLDEN, rel=5e-3)


def made(example):
    """A batch of one crop."""
    pictures = [torch.tensor(p).permute(2, 0, 1)[None] / 255 for p in (example.degraded, example.clean)]
    return Batch(*pictures, torch.tensor(example.mask)[None, None].float())


def test_bfloat16_learns_nearly_the_same(tiny_config, batch):
    losses = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(1)
        model = Spair(tiny_config)
        learner = Learner(model, "joint", LearningConfig(precision=precision))
        losses[precision] = [learner.step(batch, 1e-3)["loss"] for _ in range(5)]
        assert all(p.dtype == torch.float32 for p in model.parameters())
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"] != losses["float32"]


def test_batches_of_unequal_sizes_weigh_by_their_crops(tiny_config, batch):
    """Two workers with 1 and 2 crops of 3, gradients averaged: as one worker with all 3."""
    three = Batch(*(torch.cat([v, v[:1].flip(3)]) for v in (batch.degraded, batch.clean, batch.mask)))
    gradients = []
    for part, share in ((slice(0, 3), 1.0), (slice(0, 1), 2 / 3), (slice(1, 3), 4 / 3)):
        torch.manual_seed(4)
        learner = Learner(Spair(tiny_config), "localize", LearningConfig(clip=0.0))
        learner.step(Batch(three.degraded[part], three.clean[part], three.mask[part]), 0.0, share=share)
        gradients.append(torch.cat([p.grad.flatten() for p in learner.parameters]))
    torch.testing.assert_close((gradients[1] + gradients[2]) / 2, gradients[0], rtol=1e-4, atol=1e-7)
