"""Runs of frames through the network beside their references; what was restored then agrees with neighbours.

Where a streak was, the network guesses what it hid, anew in each frame; but the next frame shows it. So a
pixel that was restored becomes the median of what it is, before it and after it, aligned by the motion of
the restored frames, and then of what these became. What that gains is told in the room's README.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spair_core.footage import ROUNDS, Window, aligned, aligned_on, closest, references, references_on
from spair_core.gpu import uploaded
from spair_core.inference.restoring import Restored, gathered, levels, shares
from spair_core.inference.settings import MIN_DEGRADED, TILE
from spair_core.network import Spair

Pixels = NDArray[Any]

BATCH_PIXELS = 8 << 20
"""Pixels that a GPU is given at once."""
WITHIN = 16
"""Levels of 255 by which a pixel may be led by its neighbours: more is a motion that was not found."""
RIM = 1
"""Pixels around the mask that are led as well: streaks are fainter at their rims than what is found."""


@torch.inference_mode()
def restore_window(
    model: Spair, window: Window, *, tile: int = TILE, min_degraded: float = MIN_DEGRADED
) -> Restored:
    """Restore the frames of a run beside their references, where the model takes them, and let them agree.

    On a CPU one by one, so that a frame's bits do not depend on its run; on a GPU in batches. Frames beside
    the run are restored as well where a frame in which something was found is to agree with them. Raises as
    `restore` does.
    """
    restored = _through(model, window, tile, min_degraded)
    leading = {place: closest(place, seen) for place, seen in zip(window.own, window.neighbours, strict=True)}
    leading |= {one.place: closest(one.place, one.neighbours) for one in window.beside}
    guesses = dict(zip(window.own, restored.pixels, strict=True))
    masks = dict(zip(window.own, restored.mask, strict=True))
    led = [{place for place in window.own if masks[place].any()}]  # in the last round, in the one before...
    for _ in range(ROUNDS):
        leaders = {k for place in led[-1] for k in leading[place]}
        for one in window.beside:
            if one.place in leaders - guesses.keys():
                beside = _through(model, window.alongside(one), tile, min_degraded)
                guesses[one.place], masks[one.place] = beside.pixels[0], beside.mask[0]
        led.append(led[-1] | {k for k in leaders & masks.keys() if masks[k].any()})
    frames: Mapping[int, Pixels] = guesses
    for places in reversed(led[:ROUNDS]):
        some = {place: leading[place] for place in places}
        frames = _agreed(frames, some, guesses, masks, next(model.parameters()).device)
    return replace(restored, pixels=np.stack([frames[place] for place in window.own]))


def _through(model: Spair, window: Window, tile: int, min_degraded: float) -> Restored:
    """The run's frames as the network restores them."""
    device = next(model.parameters()).device
    batch = 1 if device.type == "cpu" else max(1, BATCH_PIXELS // window.pixels[0, ..., 0].size)
    starts = range(window.own.start, window.own.stop, batch)
    shown = (window.pixels[start : min(start + batch, window.own.stop)] for start in starts)
    beside = _beside(window, device, batch) if model.config.references else repeat(None)
    dtype = window.pixels.dtype
    results = (
        levels(model, frames / np.iinfo(dtype).max, seen, tile, min_degraded, dtype)
        for frames, seen in zip(uploaded(shown, device), beside, strict=False)
    )
    return gathered(results, device, dtype)


def _beside(window: Window, device: torch.device, batch: int) -> Iterator[Tensor]:
    """The references of a run, `batch` frames at a time: [b, 6, H, W] in [0, 1], from 8 bits."""
    window = window.shown
    if device.type != "cpu":
        yield from (references_on(window, device) / 255).split(batch)
        return
    for seen in references(window):
        yield shares(seen[None], device)


def _agreed(
    frames: Mapping[int, Pixels],
    leading: Mapping[int, Sequence[int]],
    guesses: Mapping[int, Pixels],
    masks: Mapping[int, NDArray[np.bool_]],
    device: torch.device,
) -> Mapping[int, Pixels]:
    """The frames by place after one more round: one of which all that leads it is known becomes its guess,
    brought towards the median of it as it is and of those that lead it."""
    known = {place: places for place, places in leading.items() if places and frames.keys() >= {*places}}
    if not known:
        return frames
    order = sorted(frames)
    neighbours = tuple(tuple(map(order.index, known.get(place, ()))) for place in order)
    window = replace(Window.alone(np.stack([frames[place] for place in order])), neighbours=neighbours)
    seen = dict(zip(order, _aligned(window, device), strict=True))
    return {**frames, **{place: _led(guesses[place], seen[place], masks[place]) for place in known}}


def _aligned(window: Window, device: torch.device) -> Iterator[NDArray[Any]]:
    """For each of the run's frames the median [H, W, 3] of it and of its neighbours, brought onto it."""
    if device.type == "cpu":
        return aligned(window)
    return iter(aligned_on(window, device).permute(0, 2, 3, 1).cpu().numpy())


def _led(frame: Pixels, reference: NDArray[Any], mask: NDArray[np.bool_]) -> Pixels:
    """The frame [H, W, 3] brought towards its reference in and around its mask [H, W]."""
    around = cv2.dilate(mask.astype(np.uint8), np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)) > 0
    most = np.iinfo(frame.dtype).max
    far = WITHIN * (most // 255)
    change = reference[around] - frame[around].astype(np.float32)
    led = frame.copy()
    led[around] = np.clip(frame[around] + np.clip(np.rint(change), -far, far), 0, most).astype(frame.dtype)
    return led
