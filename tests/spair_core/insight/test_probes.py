import numpy as np
import pytest
import torch

from kernels import build_index
from spair_core.insight import probes
from spair_core.network import Spair, ablation
from spair_core.network.blocks import FeatureModulator, SparseNonLocal, rows_of


def speckled(height, width, share=0.4, seed=0):
    return torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize("guarded", [True, False])
def test_the_weights_are_those_of_the_operator(guarded):
    """At every degraded cell, the weights times the keys give what SNL's operator gives."""
    torch.manual_seed(1)
    height, width, channels = 6, 9, 8
    module = SparseNonLocal(channels, guarded=guarded).eval()
    index = build_index(speckled(height, width))
    cells = torch.randn(height * width, channels)
    rows, keys = cells[index.active], cells[index.clean]
    with torch.inference_mode():
        expected = module(rows, keys, index)
        for number, place in enumerate(index.active.tolist()):
            y, x = divmod(place, width)
            first, second = probes.attention(module, rows, keys, index, (y, x))
            gathered = rows[number] if guarded else 0
            drawn = [torch.tensor(step.weights).float().view(-1) @ cells for step in (first, second)]
            query = module.between(gathered + drawn[0])
            result = query + drawn[1] if guarded else drawn[1]
            torch.testing.assert_close(result, expected[number], rtol=1e-4, atol=1e-5)


def test_every_direction_gets_its_blend():
    module = SparseNonLocal(8, guarded=True)
    mask = speckled(7, 7, 0.3)
    mask[0, 0, 3, 4] = True
    mask[0, 0, 3, :4] = True  # nothing clean to the left
    index = build_index(mask)
    cells = torch.randn(49, 8)
    with torch.inference_mode():
        step = probes.attention(module, cells[index.active], cells[index.clean], index, (3, 4))[0]
    lines = (step.weights[3, :4], step.weights[3, 5:], step.weights[:3, 4], step.weights[4:, 4])
    for line, e, keys, focus in zip(lines, step.blend, step.keys, step.focus, strict=True):
        assert line.sum() == pytest.approx(e if keys else 0, abs=1e-6)
        assert np.count_nonzero(line) == keys
        assert focus <= keys + 1e-4
    assert step.keys[0] == 0
    assert not step.weights[mask[0, 0].numpy()].any()


@pytest.mark.parametrize("guarded", [True, False])
def test_statistics_follow_the_equation(guarded):
    torch.manual_seed(2)
    module = FeatureModulator(4, 3, guarded=guarded)
    mask = speckled(16, 16, 0.3)
    index = build_index(mask)
    scale = torch.tensor([1.0, 0.5, 3.0, 20.0]).view(1, 4, 1, 1)  # the last ratio meets the guard
    fused = torch.randn(1, 4, 16, 16) * torch.where(mask, scale, torch.ones(())) + mask * 2
    with torch.inference_mode():
        output = module(fused - module.project(torch.zeros(1, 3, 16, 16)), torch.zeros(1, 3, 16, 16), index)
        found = probes.modulation(module, fused, output, index, "encoder", 2)
    n1, n0 = found.degraded_cells, found.clean_cells
    assert (n1, n0) == (int(mask.sum()), int((~mask).sum()))
    np.testing.assert_allclose(found.clean.mean, rows_of(fused)[index.clean].mean(0), atol=1e-5)
    fade = n1 / (n1 + 16) * n0 / (n0 + 16) if guarded else 1.0
    moved = fade * found.clean.mean + (1 - fade) * found.before.mean
    np.testing.assert_allclose(found.after.mean, moved, atol=1e-4)
    ratio = found.clean.deviation / found.before.deviation
    ratio = ratio.clip(1 / 4, 4) if guarded else ratio
    kept = (1 - fade + fade * ratio) * found.before.deviation
    np.testing.assert_allclose(found.after.deviation, kept, atol=2e-3)
    assert found.gaps(found.after)[0] < found.gaps(found.before)[0]
    if not guarded:
        assert found.gaps(found.after) == pytest.approx((0, 0), abs=1e-4)


def test_every_place_is_watched_and_left_as_it_was(tiny_config):
    model = Spair(tiny_config).eval()
    pictures, mask = torch.rand(1, 3, 64, 48), torch.zeros(1, 1, 64, 48, dtype=torch.bool)
    mask[..., 16:40, 16:24] = True
    with torch.inference_mode(), probes.watched(model, (17, 18)) as seen:
        model(pictures, mask)
    places = [(m.stage, m.level) for m in seen.modulations]
    assert places == [("encoder", 2), ("encoder", 4), ("encoder", 8), ("decoder", 4), ("decoder", 2)]
    assert sorted((a.level, a.cell) for a in seen.attentions) == [(2, (8, 9)), (4, (4, 4)), (8, (2, 2))]
    assert not any(module._forward_hooks for module in model.modules())
    with probes.watched(model, (0, 0)) as clean, torch.inference_mode():
        model(pictures, mask)
    assert not clean.attentions  # SNL does nothing at a clean cell
    plain = Spair(ablation(1, tiny_config)).eval()
    with torch.inference_mode(), probes.watched(plain, (17, 18)) as nothing:
        plain(pictures, mask)
    assert not nothing.modulations
    assert not nothing.attentions
