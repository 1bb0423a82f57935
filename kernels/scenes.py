"""What is timed on what: operators and networks, on masks of several shapes and densities, in an order."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NETWORKS = ("network_light", "network_full")
REPLAYED = ("replayed_light", "replayed_full")
"""On a GPU only."""
OPS = ("index", "sc_block", "snl_step", "sfm", *NETWORKS)
CHANNELS = 64
SMALL, HALF, LARGE = (256, 256), (360, 640), (720, 1280)
GPU_BATCHES = {SMALL: 1, (320, 480): 8, HALF: 4, LARGE: 4, (1080, 1920): 2}
"""Pictures of a size that fill a GPU, and with which the dense forms fit into 80 GB."""


class Scene(NamedTuple):
    """What is run on how many pictures; `density` is the nominal share of degraded cells of such a `mask`."""

    op: str
    height: int
    width: int
    channels: int
    density: float
    mask: str
    dtype: str
    pictures: int = 1


def scenes(device: str, *, quick: bool = False) -> Iterator[Scene]:
    """All that is run on a device by default; `quick` is one small scene of each operator."""
    if quick:
        ops = (*OPS, *REPLAYED) if device == "cuda" else OPS
        yield from _grid(ops, [(32, 32)], _streaked(0.1), ["float32"])
    elif device == "cpu":
        yield from _scenes_on_a_cpu()
    else:
        for scene in _scenes_on_a_gpu():
            yield scene._replace(pictures=GPU_BATCHES[scene.height, scene.width])


def _scenes_on_a_cpu() -> Iterator[Scene]:
    masks = [*_streaked(0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9), ("blob", 0.1), ("random", 0.1)]
    sizes = [(64, 64), (128, 128), SMALL]
    yield from _grid(["index", "sc_block", "snl_step", "sfm"], sizes, masks, ["float32"])
    yield from _grid(["network_light"], [SMALL, (512, 512)], _streaked(0.0, 0.05, 0.1, 0.5), ["float32"])
    yield from _grid(["network_full"], [SMALL], _streaked(0.0, 0.05, 0.1, 0.5), ["float32"])


def _scenes_on_a_gpu() -> Iterator[Scene]:
    """What matters most comes first, so that a run that is cut short lacks the least."""
    low, others = ["bfloat16"], [("blob", 0.1), ("random", 0.1)]
    yield from _grid(["sc_block"], [LARGE], _streaked(0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 1.0), low)
    yield from _grid(["snl_step"], [HALF], _streaked(0.02, 0.05, 0.1, 0.2, 0.5, 0.8), low)
    yield from _grid(["sfm", "index"], [LARGE], _streaked(0.05, 0.5), low)
    for frame in ((320, 480), LARGE, (1080, 1920)):  # the networks with every pixel marked are the baseline
        yield from _grid(NETWORKS, [frame], _streaked(0.05), ["bfloat16", "float32"])
        yield from _grid(REPLAYED, [frame], _streaked(0.05), low)
    for masks, dtypes in ((others, low), (_streaked(0.05, 0.2, 0.5), ["float32"])):
        yield from _grid(["sc_block"], [LARGE], masks, dtypes)
        yield from _grid(["snl_step"], [HALF], masks, dtypes)
    yield from _grid(NETWORKS, [LARGE], _streaked(0.0, 0.2, 0.5), low)
    # Small enough for their errors.
    yield from _grid(OPS, [SMALL], _streaked(0.1), ["bfloat16", "float32", "float16"])


def _streaked(*densities: float) -> list[tuple[str, float]]:
    return [("streak", density) for density in densities]


def _grid(
    ops: Iterable[str],
    sizes: Sequence[tuple[int, int]],
    masks: Sequence[tuple[str, float]],
    dtypes: Sequence[str],
) -> Iterator[Scene]:
    """Every operator on one picture of every size, with every mask, in every dtype."""
    for op, size, dtype, (mask, density) in itertools.product(ops, sizes, dtypes, masks):
        channels = 3 if op in (*NETWORKS, *REPLAYED) else CHANNELS
        yield Scene(op, *size, channels, density, mask, dtype)


def draw_mask(shape: str, pictures: int, height: int, width: int, density: float) -> Tensor:
    """bool [pictures, 1, height, width], the same at every call.

    `shape`: "streak" (slanted, 10 to 40 pixels long, 1 to 3 wide; to within one streak of the
    density), "blob" (smooth noise above a threshold; exact) or "random" (pixel by pixel).
    """
    draw = {"streak": _streaks, "blob": _blobs, "random": _specks}[shape]
    random = torch.Generator().manual_seed(0)
    return torch.stack([draw(height, width, density, random) for _ in range(pictures)])[:, None]


def _streaks(height: int, width: int, density: float, random: torch.Generator) -> Tensor:
    mask, wanted = torch.zeros(height, width, dtype=torch.bool), density * height * width
    if density >= 1:
        return ~mask  # the last gaps would take as long to hit as all others
    slope = torch.rand((), generator=random) - 0.5
    step, across = torch.arange(40)[:, None], torch.arange(3)
    while (missing := wanted - int(mask.sum())) > 0:
        count = max(int(missing) // (40 * 3), 1)  # as many as surely do not overshoot
        pick = functools.partial(torch.randint, size=(count, 1, 1), generator=random)
        y = (pick(-39, height) + step).expand(count, 40, 3)
        x = pick(-22, width + 20) + (slope * step).long() + across
        drawn = (step < pick(10, 41)) & (across < pick(1, 4))
        drawn &= (y >= 0) & (y < height) & (x >= 0) & (x < width)
        mask[y[drawn], x[drawn]] = True
    return mask


def _blobs(height: int, width: int, density: float, random: torch.Generator) -> Tensor:
    coarse = torch.randn(1, 1, height // 16 + 2, width // 16 + 2, generator=random)
    noise = F.interpolate(coarse, size=(height, width), mode="bicubic").flatten()
    highest = noise.topk(round(density * noise.numel())).indices
    return torch.zeros(noise.shape, dtype=torch.bool).index_fill_(0, highest, True).view(height, width)


def _specks(height: int, width: int, density: float, random: torch.Generator) -> Tensor:
    return torch.rand(height, width, generator=random) < density
