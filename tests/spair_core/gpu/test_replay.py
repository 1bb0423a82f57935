"""What is replayed gives the bits of what is launched, whatever happens between two calls."""

import copy
import logging
import pickle
from dataclasses import replace

import pytest
import torch

from spair_core.gpu import Replayed
from spair_core.network import PRESETS, Spair, lowered, replayed
from tests.spair_core.gpu.graphs import Graphs, noise


@pytest.fixture
def graphs(monkeypatch):
    return Graphs(monkeypatch)


def made(config, **changes):
    torch.manual_seed(2)
    return Spair(replace(config, **changes)).eval()


def outputs(model, pictures, **others):
    output = model(pictures, **others)
    return output.restored, output.logits, output.mask


def twice(given):
    return (given + given,)


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


CONFIGS = {
    "plain": lambda config: made(config),
    "squeezing": lambda config: made(config, localizer=replace(config.localizer, squeeze=True)),
    "bfloat16": lambda config: lowered(made(config), torch.bfloat16),
    "unmodulated": lambda config: made(config, restorer=replace(config.restorer, modulate=False)),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@torch.inference_mode()
def test_results_are_those_of_the_plain_way(config, tiny_config, graphs):
    model = config(tiny_config)
    replaying = replayed(model)
    for _ in range(4):
        pictures = noise(2, 3, 24, 40)
        assert same(outputs(replaying, pictures), outputs(model, pictures))
    assert graphs.replays == [3]  # at the first call nothing is known of the shape


@torch.inference_mode()
def test_references_are_seen(tiny_config, graphs):
    model = made(tiny_config, references=True)
    replaying = replayed(model)
    for _ in range(3):
        pictures, beside = noise(1, 3, 16, 16), noise(1, 6, 16, 16)
        assert same(
            outputs(replaying, pictures, references=beside), outputs(model, pictures, references=beside)
        )
    assert graphs.replays == [2]


@torch.inference_mode()
def test_earlier_results_and_inputs_stay_as_they_are(tiny_config, graphs):
    model = made(tiny_config)
    before_mask = replayed(model).replay
    inputs = [noise(1, 3, 16, 24) for _ in range(5)]
    kept = [tensor.clone() for tensor in inputs]
    results = [before_mask(tensor) for tensor in inputs]
    assert same(inputs, kept)
    assert all(same(result, model.before_mask(tensor)) for result, tensor in zip(results, kept, strict=True))
    for result in results[-1]:
        result.zero_()  # as its owner may
    assert same(before_mask(kept[0]), results[0])
    assert graphs.replays == [5]


@torch.inference_mode()
def test_layout_and_type_are_kept(tiny_config, graphs):
    model = made(tiny_config)
    before_mask = replayed(model).replay
    for _ in range(2):
        given = noise(1, 3, 16, 24)
        got, expected = before_mask(given), model.before_mask(given)
    assert [value.stride() for value in got] == [value.stride() for value in expected]


def test_weights_changed_in_place_are_seen(tiny_config, graphs):
    model = made(tiny_config)
    replaying, pictures = replayed(model), noise(1, 3, 16, 16)
    for _ in range(3):
        with torch.inference_mode():
            for _ in range(2):
                assert same(outputs(replaying, pictures), outputs(model, pictures))
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.5)
    assert graphs.replays == [5]


def test_weights_elsewhere_are_recorded_anew(tiny_config, graphs):
    model = made(tiny_config)
    replaying, pictures = replayed(model), noise(1, 3, 16, 16)
    others = {name: 1.5 * value for name, value in model.state_dict().items()}
    with torch.inference_mode():
        first = [outputs(replaying, pictures) for _ in range(3)][-1]
    model.load_state_dict(others, assign=True)
    with torch.inference_mode():
        for _ in range(3):
            now = outputs(replaying, pictures)
            assert same(now, outputs(model, pictures))
            assert not same(now, first)
    assert graphs.replays == [2, 2]


@torch.inference_mode()
def test_shapes_layouts_types_and_streams_have_graphs_of_their_own(graphs):
    doubled = Replayed(twice, list, most=9)
    forms = [
        noise(2, 3, 8, 8),
        noise(1, 3, 8, 8),
        noise(2, 3, 8, 8).bfloat16(),
        noise(2, 3, 8, 8).contiguous(),
    ]
    for _ in range(3):
        for form in forms:
            (got,) = doubled(form)
            assert torch.equal(got, form + form)
            assert got.stride() == form.stride()
    graphs.stream = 1
    for _ in range(2):
        doubled(forms[0])
    assert graphs.replays == [2, 2, 2, 2, 1]


@torch.inference_mode()
def test_few_graphs_are_kept_and_the_least_recently_used_goes(graphs):
    doubled = Replayed(twice, list, most=2)
    shapes = {name: noise(1, 3, 8, width) for name, width in (("a", 8), ("b", 16), ("c", 24))}

    def call(names):
        for name in names:
            assert torch.equal(doubled(shapes[name])[0], 2 * shapes[name])

    call("aabb")
    assert graphs.replays == [1, 1]
    call("acc")  # b goes
    assert len(doubled._known) == 2
    assert graphs.replays == [2, 1, 1]
    call("abb")  # c goes
    assert graphs.replays == [3, 1, 1, 1]


@torch.inference_mode()
def test_sizes_that_come_once_are_not_recorded(graphs):
    doubled = Replayed(twice, list)
    for width in range(1, 20):
        doubled(noise(1, 3, 8, width))
    assert graphs.made == []


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_outside_of_inference_mode_nothing_is_replayed(mode, tiny_config, graphs):
    model = made(tiny_config)
    replaying, pictures = replayed(model), noise(1, 3, 16, 16)
    with mode():
        for _ in range(3):
            assert same(outputs(replaying, pictures), outputs(model, pictures))
    assert graphs.made == []


def test_gradients_are_those_of_the_plain_way(tiny_config, graphs):
    model, pictures = made(tiny_config), noise(1, 3, 16, 16)
    leaves = list(model.parameters())
    both = [
        torch.autograd.grad(each(pictures).restored.square().sum(), leaves, allow_unused=True)
        for each in (replayed(model), model)
    ]
    assert all(a is b is None or torch.allclose(a, b) for a, b in zip(*both, strict=True))


@torch.inference_mode()
def test_under_autocast_nothing_is_replayed(tiny_config, graphs):
    replaying, pictures = replayed(made(tiny_config)), noise(1, 3, 16, 16)
    with torch.autocast("cpu"):
        for _ in range(3):
            replaying(pictures)
    assert graphs.made == []


@torch.inference_mode()
def test_a_whole_pictures_factors_are_not_replayed(tiny_config, graphs):
    model = made(tiny_config, localizer=replace(tiny_config.localizer, squeeze=True))
    replaying, pictures = replayed(model), noise(1, 3, 16, 16)
    factors = [torch.full((1, 8), 0.5)] * 5
    for _ in range(3):
        assert same(outputs(replaying, pictures, factors=factors), outputs(model, pictures, factors=factors))
    assert graphs.made == []


@torch.inference_mode()
def test_where_recording_fails_the_plain_way_goes_on_and_the_log_says_so_once(tiny_config, graphs, caplog):
    graphs.broken = True
    model = made(tiny_config)
    replaying = replayed(model)
    with caplog.at_level(logging.WARNING, "spair.gpu"):
        for size in (16, 16, 16, 24, 24, 24):
            pictures = noise(1, 3, size, size)
            assert same(outputs(replaying, pictures), outputs(model, pictures))
    assert [record.getMessage() for record in caplog.records] == [
        "launches are not replayed: operation not permitted when stream is capturing"
    ]


@torch.inference_mode()
def test_copies_begin_without_graphs(tiny_config, graphs):
    model = made(tiny_config)
    replaying, pictures = replayed(model), noise(1, 3, 16, 16)
    for _ in range(2):
        replaying(pictures)
    for other in (copy.deepcopy(replaying), pickle.loads(pickle.dumps(replaying))):
        for weight in other.parameters():
            weight.mul_(1.5)
        begun = len(graphs.made)
        results = [outputs(other, pictures) for _ in range(3)]
        assert len(graphs.made) == begun + 1
        assert same(results[0], results[-1])
        assert not same(results[-1], outputs(model, pictures))


@torch.inference_mode()
def test_off_a_gpu_nothing_is_replayed(tiny_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", None)
    model = made(tiny_config)
    replaying = replayed(model)
    for _ in range(3):
        pictures = noise(1, 3, 16, 16)
        assert same(outputs(replaying, pictures), outputs(model, pictures))


@torch.inference_mode()
def test_the_stand_in_repeats_operations_and_would_show_an_alias(graphs):
    """Negative control: what the tests above say of results that stay."""
    replaying = Replayed(twice, list)
    first, second = noise(1, 3, 8, 8), noise(1, 3, 8, 8)
    for given in (first, first):
        replaying(given)
    (recording,) = (found for found in replaying._known.values() if found)
    assert torch.equal(recording.results[0], 2 * first)
    replaying(second)
    assert torch.equal(recording.results[0], 2 * second)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("preset", ["light", "full"])
@torch.inference_mode()
def test_on_a_gpu_results_are_those_of_the_plain_way(preset, dtype, gpu):
    config = PRESETS[preset]()
    model = made(config, localizer=replace(config.localizer, squeeze=True)).to(gpu)
    model = lowered(model, dtype)
    replaying = replayed(model)
    results = []
    for size in ((2, 120, 160), (1, 64, 96), (2, 120, 160), (1, 64, 96), (2, 120, 160), (1, 64, 96)):
        pictures = noise(size[0], 3, *size[1:]).to(gpu)
        results.append((outputs(replaying, pictures), outputs(model, pictures)))
    assert all(same(*each) for each in results)
    assert not replaying.replay._failed
    assert all(replaying.replay._known.values())
