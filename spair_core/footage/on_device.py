"""The references of frames in torch, for models on a GPU: what `references` does with OpenCV on a CPU.

Flow is pyramidal Lucas-Kanade, dense and iterated (Bouguet 2001), which is made of sums over windows: DIS
walks patch by patch and has no form that a GPU likes. The two agree where there is texture; nothing asks that
they be equal, as the median is robust and the network is shown the difference. Of eight frames of
three drives in synthetic streaks the aligned reference is 0.2 dB less good by this on average, 0.7 at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spair_core.footage.references import (
    EXPOSURE_RANGE,
    EXPOSURE_STEP,
    FEWEST_BEATS,
    FLOW_BLUR,
    FLOW_SMALLEST,
    STEADY,
    STREAK_SHARE,
)
from spair_core.footage.windows import Window
from spair_core.gpu import tensor_of

COARSEST = 12
"""Shortest side of the pyramid's top."""
WINDOW = 9
"""Side of the windows, in pixels of each level, over which a motion is one."""
ROUNDS = 3
"""Refinements a level."""
STIFFNESS = 4.0
"""Holds a motion where the window's texture does not tell it, in squared levels of its gradients."""
FARTHEST = 2.0
"""Pixels by which a round may move."""


@torch.inference_mode()
def references_on(window: Window, device: torch.device) -> Tensor:
    """Both references of each of the run's frames, float32 [n, 6, H, W] in [0, 255], whole levels."""
    frames = tensor_of(window.pixels, device)
    own = frames[window.own.start : window.own.stop]
    aligned = _aligned(frames, window, _without_streaks(frames))
    fixed = [
        _exposed_like(_median(_beats(frames, beats)), frame) if len(beats) >= FEWEST_BEATS else frame
        for frame, beats in zip(own, window.beats, strict=True)
    ]
    return torch.cat([aligned, torch.stack(fixed)], 1).round()


@torch.inference_mode()
def aligned_on(window: Window, device: torch.device) -> Tensor:
    """The aligned reference alone of each of a run's restored frames: float32 [n, 3, H, W], in levels."""
    depth = np.iinfo(window.pixels.dtype).max / 255
    frames = tensor_of(window.pixels, device) / depth
    return _aligned(frames, window, _grey(frames)) * depth


def _beats(frames: Tensor, beats: Sequence[int]) -> Tensor:
    middle = frames[beats[len(beats) // 2]]
    return torch.stack([_exposed_like(frames[beat], middle) for beat in beats])


def _aligned(frames: Tensor, window: Window, grey: Tensor) -> Tensor:
    pairs = [(place, k) for place, near in zip(window.own, window.neighbours, strict=True) for k in near]
    if min(frames.shape[-2:]) < FLOW_SMALLEST or not pairs:
        return frames[window.own.start : window.own.stop]
    places, others = (torch.tensor(side, device=frames.device) for side in zip(*pairs, strict=True))
    brought = warped(frames[others], flow(grey[places], grey[others]))
    references, start = [], 0
    for place, near in zip(window.own, window.neighbours, strict=True):
        frame = frames[place]
        beside = [_exposed_like(one, frame) for one in brought[start : start + len(near)]]
        references.append(_median(torch.stack([frame, *beside])) if len(near) >= 2 else frame)
        start += len(near)
    return torch.stack(references)


def _without_streaks(frames: Tensor) -> Tensor:
    """Grey [k, 1, H, W], without what is bright and narrow along the rows, and blurred."""
    grey = _grey(frames)
    wide = max(5, frames.shape[-2] // STREAK_SHARE | 1)
    eroded = -F.max_pool2d(-grey, (1, wide), 1, (0, wide // 2))
    opened = F.max_pool2d(eroded, (1, wide), 1, (0, wide // 2))
    reach = torch.arange(-4, 5, device=frames.device, dtype=frames.dtype)
    bell = torch.softmax(-0.5 * (reach / FLOW_BLUR) ** 2, 0)
    padded = F.pad(opened, (4, 4, 4, 4), mode="reflect")
    return F.conv2d(F.conv2d(padded, bell.view(1, 1, 1, -1)), bell.view(1, 1, -1, 1))


def _grey(frames: Tensor) -> Tensor:
    return (frames * frames.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def flow(first: Tensor, second: Tensor) -> Tensor:
    """Dense motion from first to second pictures, grey [n, 1, H, W] -> [n, 2, H, W] (x, y) in pixels."""
    levels = [(first, second)]
    while min(levels[-1][0].shape[-2:]) >= 2 * COARSEST:
        levels.append(tuple(F.avg_pool2d(side, 2, ceil_mode=True) for side in levels[-1]))  # type: ignore[arg-type]
    found = first.new_zeros(first.shape[0], 2, *levels[-1][0].shape[-2:])
    for here, there in reversed(levels):
        if found.shape[-2:] != here.shape[-2:]:
            found = 2 * F.interpolate(found, here.shape[-2:], mode="bilinear")
        found = _refined(here, there, found)
    return found


def _refined(first: Tensor, second: Tensor, found: Tensor) -> Tensor:
    """Lucas-Kanade at one level: the motion that explains the difference left in each window."""
    padded = F.pad(first, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    xx, xy, yy = (_summed(product) for product in (across * across, across * down, down * down))
    xx, yy = xx + STIFFNESS, yy + STIFFNESS
    for _ in range(ROUNDS):
        left = warped(second, found) - first
        x, y = _summed(across * left), _summed(down * left)
        determinant = xx * yy - xy * xy
        step = torch.cat([xy * y - yy * x, xy * x - xx * y], 1) / determinant
        found = _summed(found + step.clamp(-FARTHEST, FARTHEST))
    return found


def _summed(values: Tensor) -> Tensor:
    """The mean over the window around each place."""
    return F.avg_pool2d(values, WINDOW, 1, WINDOW // 2, count_include_pad=False)


def warped(pictures: Tensor, motion: Tensor) -> Tensor:
    """Pictures [n, C, H, W] taken at each place plus its motion [n, 2, H, W], reflected at their edges."""
    height, width = pictures.shape[-2:]
    rows = torch.arange(height, device=pictures.device, dtype=motion.dtype)[:, None]
    columns = torch.arange(width, device=pictures.device, dtype=motion.dtype)
    x = (columns + motion[:, 0]) * (2 / max(width - 1, 1)) - 1
    y = (rows + motion[:, 1]) * (2 / max(height - 1, 1)) - 1
    at = torch.stack([x, y], -1)
    return F.grid_sample(pictures, at, "bilinear", "reflection", align_corners=True)


def _exposed_like(picture: Tensor, frame: Tensor) -> Tensor:
    low, high = EXPOSURE_RANGE
    a, b = (pixels[1, ::EXPOSURE_STEP, ::EXPOSURE_STEP] for pixels in (picture, frame))
    usable = (a > low) & (a < high) & (b > low) & (b < high)
    ratio = torch.where(usable, b / a.clamp(min=1), torch.nan).nanmedian().nan_to_num(1.0)
    gain = torch.where((ratio - 1).abs() < STEADY, 1.0, ratio)
    return (picture * gain).clamp(0, 255)


def _median(stack: Tensor) -> Tensor:
    """Over the first dimension; of an even number, the middle two's mean."""
    ordered = stack.sort(0).values
    middle = len(stack) // 2
    return ordered[middle] if len(stack) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
