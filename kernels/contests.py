"""What `kernels.benchmark` times in a scene: our operators, and their dense forms.

Shape letters: N pictures, C channels, H x W cells; L lines of K cells, rows or columns.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import ActiveIndex, build_index, reference, sc_block, sfm, snl_step
from kernels.scenes import CHANNELS, Scene, draw_mask

GROWTH, LAYERS = 32, 6
SNL_SCALE = CHANNELS**-0.5
SFM_GUARDS = {"eps": 1e-3, "max_ratio": 4.0, "fade": 16.0}
GPU_BACKWARD_CELLS = 1 << 21
"""Most cells of a batch that a network's backward pass, for which every layer's are kept, is timed on."""

Pass = Literal["forward", "both"]


@dataclass(frozen=True)
class Form:
    """One way to compute something: `call` gives the result, `leaves` are what gradients are taken of."""

    call: Callable[[], Tensor]
    leaves: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Contest:
    """Ours and its baselines, by name.

    `work` of each pass to be timed: bytes where `bound` is "copy", else floating point operations.
    `exact` gives in float64 what `ours` should be.
    """

    ours: Form
    baselines: Mapping[str, Form]
    bound: Literal["gemm", "copy"]
    work: Mapping[Pass, float]
    exact: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class Ground:
    """The data of a scene: `mask` bool [N, 1, H, W], its index, features `x` [N, C, H, W] (channels last)."""

    mask: Tensor
    index: ActiveIndex
    x: Tensor

    @staticmethod
    def of(scene: Scene, device: str) -> Ground:
        """Draw it, always the same."""
        torch.manual_seed(0)
        size = scene.height, scene.width
        mask = draw_mask(scene.mask, scene.pictures, *size, scene.density).to(device)
        x = torch.randn(scene.pictures, scene.channels, *size, device=device)
        x = x.to(getattr(torch, scene.dtype), memory_format=torch.channels_last)
        return Ground(mask, build_index(mask), x.requires_grad_())

    def noise(self, *shape: int, share: float = 1.0) -> Tensor:
        """Normal noise, a leaf of the features' dtype."""
        return leaf((share * torch.randn(shape, device=self.x.device)).to(self.x.dtype))

    def active(self, pictures: Tensor) -> Tensor:
        """[N, *, H, W] -> the rows of the degraded cells [n, *]."""
        return rows_of(pictures)[self.index.active]


def leaf(value: Tensor) -> Tensor:
    """The same values, to take gradients of."""
    return value.detach().requires_grad_()


def rows_of(pictures: Tensor) -> Tensor:
    """[N, C, H, W] -> [N*H*W, C]."""
    return pictures.permute(0, 2, 3, 1).flatten(0, 2)


def dense_sc(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """SC's layers and its 1x1 (the last weight and bias) as ordinary convolutions over all of `x`."""
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = torch.cat([x, F.conv2d(x, weight, bias, padding=1).relu_()], dim=1)
    return F.conv2d(x, weights[-1][:, :, None, None], biases[-1])


class Direction(NamedTuple):
    """What queries see on one side along one axis of L lines of K cells."""

    hidden: Tensor  # bool [N*L, K, K]: these scores do not count
    some: Tensor  # bool [N*L, K, 1]: whether any does; a query without one sees all cells, to be weighted 0


def directions(mask: Tensor, axis: int) -> tuple[Direction, Direction]:
    """Left and right (axis 0) or up and down (1), for a mask bool [N, 1, H, W]."""
    turned = mask.transpose(2, 3) if axis else mask
    # Contiguous, columns too: strided, they make the attention several times slower.
    clean = ~turned[:, 0].flatten(0, 1)[:, None].contiguous()
    square = clean.new_ones(clean.shape[2], clean.shape[2])
    seen = (clean & square.tril(-1), clean & square.triu(1))
    some = [side.any(2, keepdim=True) for side in seen]
    return Direction(~seen[0] & some[0], some[0]), Direction(~seen[1] & some[1], some[1])


Attention = Callable[[Tensor, Tensor, int], Tensor]
"""Cells [N*L, K, C] and the blend weights of an axis [N*L, K, 2] -> gathered [N*L, K, C]."""


def dense_snl(x: Tensor, blend: Tensor, attend: Attention) -> Tensor:
    """One step of SNL at every cell, clean ones included: whole lines of scores, then masked.

    `x` [N, C, H, W], `blend` [N, 4, H, W]; `attend` is `row_masked` or `fused` of the mask.
    """
    total = torch.zeros_like(x)
    for axis in (0, 1):
        turned, shares = (v.transpose(2, 3) if axis else v for v in (x, blend[:, 2 * axis : 2 * axis + 2]))
        cells, weights = (v.permute(0, 2, 3, 1).flatten(0, 1).contiguous() for v in (turned, shares))
        gathered = attend(cells, weights, axis).unflatten(0, turned.shape[::2]).permute(0, 3, 1, 2)
        total = total + (gathered.transpose(2, 3) if axis else gathered)
    return total


def row_masked(mask: Tensor) -> Attention:
    """As one would write it: batched products, and masks made from the mask at every call."""

    def attend(cells: Tensor, weights: Tensor, axis: int) -> Tensor:
        scores = torch.bmm(cells * SNL_SCALE, cells.transpose(1, 2))
        mixed = torch.zeros_like(scores)
        for side, (hidden, some) in enumerate(directions(mask, axis)):
            shares = scores.masked_fill(hidden, -math.inf).softmax(2)
            mixed = mixed + shares * (weights[..., side : side + 1] * some)
        return torch.bmm(mixed, cells)

    return attend


def fused(mask: Tensor, dtype: torch.dtype) -> Attention:
    """By torch's own attention; its masks are prepared once, as numbers to add, 0 or -inf."""
    prepared = [
        [
            (torch.zeros_like(hidden, dtype=dtype).masked_fill_(hidden, -math.inf)[:, None], some)
            for hidden, some in directions(mask, axis)
        ]
        for axis in (0, 1)
    ]

    def attend(cells: Tensor, weights: Tensor, axis: int) -> Tensor:
        heads, gathered = cells[:, None], torch.zeros_like(cells)
        for side, (bias, some) in enumerate(prepared[axis]):
            out = F.scaled_dot_product_attention(heads, heads, heads, bias, scale=SNL_SCALE)
            gathered = gathered + out.squeeze(1) * (weights[..., side : side + 1] * some)
        return gathered

    return attend


def eager_sfm(x: Tensor, mask: Tensor, *, eps: float, max_ratio: float, fade: float) -> Tensor:
    """SFM of a batch by sums over all cells times a mask. `x` [N, C, H, W], `mask` bool [N, 1, H, W]."""
    total = functools.partial(  # in float32 at least: counts overflow float16
        torch.sum, dim=(2, 3), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32)
    )
    statistics_of_set = []
    for share in (mask.to(x.dtype), (~mask).to(x.dtype)):
        count = total(share)
        mean = total(x * share) / count.clamp(min=1)
        variance = total((x - mean.to(x.dtype)).square() * share) / count.clamp(min=1)
        statistics_of_set.append((count, mean, (variance + eps).sqrt()))
    (n1, mu1, sigma1), (n0, mu0, sigma0) = statistics_of_set
    ratio = (sigma0 / sigma1).clamp(1 / max_ratio, max_ratio)
    weight = n1 / (n1 + fade) * n0 / (n0 + fade)
    gain, shift = (value.to(x.dtype) for value in (weight * (ratio - 1), weight * (mu0 - ratio * mu1)))
    return x + mask * (gain * x + shift)


def _spconv(ground: Ground) -> Form:
    """The SC block of spconv's layers, with weights of their own, its pairs found beforehand."""
    spconv: Any = importlib.import_module("spconv.pytorch")
    rows = leaf(ground.active(ground.x))
    widths = [CHANNELS + i * GROWTH for i in range(LAYERS + 1)]
    layers = [spconv.SubMConv2d(c, GROWTH, 3, padding=1, indice_key="mask") for c in widths[:-1]]
    block = nn.ModuleList([*layers, nn.Linear(widths[-1], CHANNELS)]).to(rows)
    places = ground.mask[:, 0].nonzero().int()  # ascending, so not row by row ours: only times are compared
    bare = spconv.SparseConvTensor(rows.detach(), places, list(ground.mask.shape[2:]), ground.mask.shape[0])
    paired = functools.cache(lambda: layers[0](bare))  # what a layer gives holds the pairs of its key

    def call() -> Tensor:
        seen = rows
        for layer in layers:
            seen = torch.cat([seen, layer(paired().replace_feature(seen)).features.relu()], dim=1)
        return block[-1](seen)

    return Form(call, [rows, *block.parameters()])


def _sc(ground: Ground) -> Contest:
    widths = [CHANNELS + i * GROWTH for i in range(LAYERS + 1)]
    weights = [ground.noise(GROWTH, c, 3, 3, share=(9 * c) ** -0.5) for c in widths[:-1]]
    weights.append(ground.noise(CHANNELS, widths[-1], share=widths[-1] ** -0.5))
    biases = [ground.noise(weight.shape[0], share=0.1) for weight in weights]
    rows, index = leaf(ground.active(ground.x)), ground.index
    last = [leaf(w.contiguous(memory_format=torch.channels_last)) if w.ndim == 4 else w for w in weights]

    def ours() -> Tensor:
        return sc_block(rows, index, weights[:-1], biases[:-1], weights[-1], biases[-1])

    def exact() -> Tensor:
        w, b = ([value.detach().double() for value in values] for values in (weights, biases))
        return ground.active(reference.sc_block(ground.x.double(), ground.mask, w[:-1], b[:-1], w[-1], b[-1]))

    dense = Form(lambda: dense_sc(ground.x, last, biases), [ground.x, *last, *biases])
    baselines = {"dense convolution, channels_last": dense}
    if ground.x.is_cuda and importlib.util.find_spec("spconv"):
        baselines["spconv SubMConv2d"] = _spconv(ground)
    window = torch.ones(1, 1, 3, 3, device=rows.device)
    neighbours = int(F.conv2d(ground.mask.float(), window, padding=1)[ground.mask].sum(dtype=torch.float64))
    taps = sum(weight.numel() // 9 for weight in weights[:-1])
    flops = 2 * (neighbours * taps + rows.shape[0] * weights[-1].numel())
    work: dict[Pass, float] = {"forward": flops, "both": 3 * flops}
    return Contest(Form(ours, [rows, *weights, *biases]), baselines, "gemm", work, exact)


def _snl(ground: Ground) -> Contest:
    x, index = ground.x, ground.index
    attends = {"row-masked": row_masked(ground.mask), "fused": fused(ground.mask, x.dtype)}
    blend = ground.noise(x.shape[0], 4, *x.shape[2:], share=0.5)
    queries, keys, weights = leaf(ground.active(x)), leaf(rows_of(x)[index.clean]), leaf(ground.active(blend))
    baselines = {
        f"dense attention, {name}": Form(functools.partial(dense_snl, x, blend, attend), [x, blend])
        for name, attend in attends.items()
    }
    pairs = 0
    for axis in (2, 3):
        marked = ground.mask.sum(axis)
        pairs += int((marked * (ground.mask.shape[axis] - marked)).sum())
    product = 2 * CHANNELS * pairs  # two of them forward, five more backward
    return Contest(
        Form(lambda: snl_step(queries, keys, weights, index, SNL_SCALE), [queries, keys, weights]),
        baselines,
        "gemm",
        {"forward": 2 * product, "both": 7 * product},
        lambda: ground.active(dense_snl(x.double(), blend.double(), attends["row-masked"])),
    )


def _sfm(ground: Ground) -> Contest:
    x, mask = ground.x, ground.mask
    size = x.numel() * x.element_size()
    return Contest(
        Form(lambda: sfm(x, mask, **SFM_GUARDS), [x]),
        {"eager torch, masked sums": Form(lambda: eager_sfm(x, mask, **SFM_GUARDS), [x])},
        "copy",
        # Forward reads and writes the features; backward reads them and a gradient and writes another.
        {"forward": 2 * size, "both": 5 * size},
        lambda: reference.sfm(x.double(), mask, **SFM_GUARDS),
    )


def _index(ground: Ground) -> Contest:
    model = _built("light", ground)
    pictures = torch.rand_like(ground.x[:, :3])
    made = model.indices(ground.mask)
    tables = [t for i in made for t in (i.mask, i.active, i.clean, i.neighbours, i.bands, *(i.lines or ()))]
    return Contest(
        Form(lambda: model.indices(ground.mask)[0].active),
        {"the forward pass it serves, of network_light": Form(lambda: model(pictures, ground.mask).restored)},
        "copy",
        {"forward": sum(table.numel() * table.element_size() for table in tables)},
    )


def _built(preset: str, ground: Ground) -> Any:
    # The one look upwards: this tool also times the network that the operators serve.
    from spair_core import network

    config = network.PRESETS[preset]()
    return network.Spair(config).eval().to(ground.x)


def _network(preset: str, ground: Ground) -> Contest:
    from spair_core import cost

    model = _built(preset, ground)
    pictures, mask, everywhere = leaf(ground.x.sigmoid()), ground.mask, torch.ones_like(ground.mask)
    leaves = [pictures, *model.parameters()]
    flops = 2 * cost.count_mask(model.config, mask).macs_per_pixel * mask.numel()
    work: dict[Pass, float] = {"forward": flops}
    # The full one's backward pass takes a CPU too long.
    if mask.numel() <= GPU_BACKWARD_CELLS if mask.is_cuda else preset == "light":
        work["both"] = 3 * flops
    return Contest(
        Form(lambda: model(pictures, mask).restored, leaves),
        {"the same network, every pixel marked": Form(lambda: model(pictures, everywhere).restored, leaves)},
        "gemm",
        work,
        lambda: copy.deepcopy(model).double()(pictures.double(), mask).restored,
    )


def _replayed(preset: str, ground: Ground) -> Contest:
    from spair_core import cost, network

    plain, pictures, mask = _built(preset, ground), ground.x.detach().sigmoid(), ground.mask
    replaying = network.replayed(plain)

    def restored(model: Any) -> Callable[[], Tensor]:
        # As footage is restored: what is recorded is replayed in inference mode only.
        return torch.inference_mode()(lambda: model(pictures, mask).restored)

    for _ in range(2):  # the second call records
        restored(replaying)()
    return Contest(
        Form(restored(replaying)),
        {"the same network, launch by launch": Form(restored(plain))},
        "gemm",
        {"forward": 2 * cost.count_mask(plain.config, mask).macs_per_pixel * mask.numel()},
        restored(plain),
    )


CONTESTS: dict[str, Callable[[Ground], Contest]] = {
    "index": _index,
    "sc_block": _sc,
    "snl_step": _snl,
    "sfm": _sfm,
    "network_light": functools.partial(_network, "light"),
    "network_full": functools.partial(_network, "full"),
    "replayed_light": functools.partial(_replayed, "light"),
    "replayed_full": functools.partial(_replayed, "full"),
}
