from dataclasses import replace

import pytest
import torch

from kernels import build_index, reference
from spair_core import network
from spair_core.network import NetworkConfig, Spair, ablation, coarsen, grown, light
from spair_core.network.blocks import (
    SparseConvolution,
    SparseNonLocal,
    SqueezeExcitation,
    excited,
    moments,
)
from spair_core.network.restoration import DecoderBlock, RestorerConfig


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (8, 8), (33, 17), (40, 64)])
def test_pictures_of_any_size(tiny_config, size):
    output = Spair(tiny_config)(torch.rand(2, 3, *size))
    assert output.restored.shape == (2, 3, *size)
    assert output.mask.shape == output.logits.shape == (2, 1, *size)
    assert output.restored.isfinite().all()


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_every_ablation_learns(tiny_config, number):
    model = Spair(ablation(number, tiny_config))
    mask = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.4
    model(torch.rand(1, 3, 16, 16), mask).restored.sum().backward()
    used = [p.grad is not None and p.grad.abs().sum() > 0 for p in model.restorer.decoder[1].parameters()]
    assert any(used)


def test_there_is_no_sixth_ablation():
    with pytest.raises(ValueError, match="Net1 to Net5"):
        ablation(6)


@pytest.mark.parametrize("preset", [network.light, network.full, network.paper])
def test_presets_survive_a_round_trip(preset):
    config = replace(preset(), binarize=0.3, sure=0.01)
    assert NetworkConfig.from_dict(preset().to_dict()) == preset()
    assert NetworkConfig.from_dict(config.to_dict()) == config


def test_a_clean_picture_meets_no_sparse_operator(tiny_config):
    model = Spair(tiny_config).eval()
    picture = torch.rand(1, 3, 32, 32)
    spotted = torch.zeros(1, 1, 32, 32).bool()
    operators = {}
    for name, mask in (("clean", spotted.clone()), ("spotted", spotted.index_fill_(2, torch.tensor(5), 1))):
        with torch.no_grad(), torch.profiler.profile() as profile:
            model(picture, mask)
        operators[name] = {event.name for event in profile.events() if event.name.startswith("spair::")}
    assert operators == {"clean": set(), "spotted": {"spair::sc_block", "spair::snl_step", "spair::sfm"}}


def test_the_decoder_leaves_clean_cells_unaltered():
    block = DecoderBlock(8, 4, RestorerConfig(), attend=True)
    mask = torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(0)) < 0.3
    features = torch.randn(2, 8, 12, 10)
    changed = block(features, build_index(mask))
    kept = (~mask).expand_as(features)
    assert torch.equal(changed[kept], features[kept])
    assert not torch.equal(changed[~kept], features[~kept])


@pytest.mark.parametrize("guarded", [False, True], ids=["by the letter", "guarded"])
def test_a_decoder_level_is_its_equations(guarded):
    torch.manual_seed(0)
    block = DecoderBlock(6, 3, RestorerConfig(guarded=guarded), attend=True).double()
    sc, snl = block.convolve, block.attend
    assert isinstance(sc, SparseConvolution)
    assert isinstance(snl, SparseNonLocal)
    mask = torch.rand(1, 1, 7, 6) < 0.4
    features = torch.randn(1, 6, 7, 6, dtype=torch.float64)

    def cellwise(layer, values):
        return layer(values.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def step(number, values):
        blend = cellwise(snl.blends[number], values)
        keyed = torch.where(mask, values, features)
        gathered = reference.snl_step(keyed, mask, blend.tanh() if guarded else blend, snl.scale)
        return values + gathered if guarded else gathered

    state = features + reference.sc_block(
        features, mask, list(sc.weights), list(sc.biases), sc.fuse.weight, sc.fuse.bias
    )
    state = step(1, cellwise(snl.between, step(0, state)))
    expected = torch.where(mask, state, features)
    torch.testing.assert_close(block(features, build_index(mask)), expected, rtol=1e-9, atol=1e-9)


def levels(*pixels):
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    for y, x in pixels:
        mask[0, 0, y, x] = True
    return coarsen(mask)


def test_half_takes_the_maximum():
    full, half, quarter, eighth = levels((3, 9))
    assert [level.shape[-1] for level in (full, half, quarter, eighth)] == [16, 8, 4, 2]
    assert all(level.dtype == torch.bool for level in (full, half, quarter, eighth))
    assert half.nonzero().tolist() == [[0, 0, 1, 4]]
    assert not quarter.any()


def test_coarser_cells_need_an_eighth_of_their_pixels():
    _, _, quarter, eighth = levels((0, 0), (3, 3))  # 2 of 16, 2 of 64
    assert quarter.nonzero().tolist() == [[0, 0, 0, 0]]
    assert not eighth.any()
    _, _, _, below = levels(*((row, 8) for row in range(7)))  # 7 of 64
    _, _, _, enough = levels(*((row, 8) for row in range(8)))  # 8 of 64
    assert not below.any()
    assert enough.nonzero().tolist() == [[0, 0, 0, 1]]


def test_a_given_mask_replaces_the_predicted_one(tiny_config):
    model = Spair(tiny_config).eval()
    picture = torch.rand(1, 3, 16, 16)
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[..., 4:9] = True
    assert torch.equal(model(picture, mask).mask, mask)


def with_references(config, *, squeeze=True):
    return replace(config, references=True, localizer=replace(config.localizer, squeeze=squeeze))


def test_a_still_is_its_own_reference(tiny_config):
    model = Spair(with_references(tiny_config)).eval()
    pictures = torch.rand(2, 3, 40, 56)
    itself = model(pictures, references=pictures.repeat(1, 2, 1, 1))
    alone = model(pictures)
    assert torch.equal(alone.logits, itself.logits)
    assert torch.equal(alone.restored, itself.restored)


def test_references_are_seen_by_both_networks(tiny_config):
    model = Spair(with_references(tiny_config)).eval()
    pictures, references = torch.rand(1, 3, 40, 56), torch.rand(1, 6, 40, 56)
    mask = torch.ones(1, 1, 40, 56, dtype=torch.bool)
    one, other = model(pictures, mask), model(pictures, mask, references)
    assert (one.logits != other.logits).any()
    model.restorer.stem.weight.data[:, 12:] = 0
    model.restorer.full_skip.weight.data[:, 12:] = 0
    model.localizer.stem.weight.data[:, 12:] = 0
    assert torch.equal(model(pictures, mask).restored, model(pictures, mask, references).restored)


def test_networks_without_references_take_no_notice_of_them(tiny_config):
    model = Spair(tiny_config).eval()
    pictures = torch.rand(1, 3, 40, 56)
    assert torch.equal(
        model(pictures).restored, model(pictures, references=torch.rand(1, 6, 40, 56)).restored
    )


def test_squeezing_weighs_channels_by_their_moments():
    torch.manual_seed(0)
    block = SqueezeExcitation(6)
    features = torch.randn(2, 6, 5, 7)
    assert torch.equal(excited(features, block.factors(*moments(features))), features)
    torch.nn.init.normal_(block.excite.weight)
    mean = features.double().mean((2, 3))
    deviation = (features.double() - mean[..., None, None]).square().mean((2, 3)).sqrt()
    hidden = (torch.cat([mean, deviation], 1) @ block.squeeze.weight.double().T + block.squeeze.bias).relu()
    factors = 2 / (1 + torch.exp(-(hidden @ block.excite.weight.double().T + block.excite.bias)))
    expected = features.double() * factors[..., None, None]
    assert torch.allclose(excited(features, block.factors(*moments(features))).double(), expected, atol=1e-5)


def test_what_references_and_squeezing_cost():
    plain, rich = Spair(light()), Spair(with_references(light()))
    more = sum(p.numel() for p in rich.parameters()) - sum(p.numel() for p in plain.parameters())
    stems = 24 * 9 * (32 + 48 + 64)
    squeezing = sum(2 * c * (c // 2) + c // 2 + (c // 2) * c + c for c in (32, 48, 64, 48, 32))
    assert more == stems + squeezing


def test_weights_grow_into_networks_that_see_more(tiny_config):
    old = Spair(tiny_config).eval()
    new = grown(old, with_references(tiny_config)).eval()
    pictures = torch.rand(2, 3, 40, 56)
    seen = new(pictures, references=torch.rand(2, 6, 40, 56))
    assert torch.allclose(old(pictures).restored, seen.restored, atol=1e-5)
    assert torch.equal(grown(new, new.config)(pictures).restored, new(pictures).restored)
    own = replace(old.config, binarize=0.3, sure=0.01)
    thresholds = grown(Spair(own), with_references(tiny_config)).config
    assert (thresholds.binarize, thresholds.sure) == (0.3, 0.01)
    seeing_less = (
        tiny_config,
        with_references(tiny_config, squeeze=False),
        replace(new.config, references=False),
    )
    for less in seeing_less:
        with pytest.raises(ValueError, match="differ by more than added"):
            grown(new, less)
    with pytest.raises(ValueError, match="differ"):
        grown(old, light())
