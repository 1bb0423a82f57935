"""How steady footage is, and what stands still on it: flicker, mask bits that flip, residue, kept contrast.

Flicker is Lai et al.'s warping error (Learning Blind Video Temporal Consistency, 2018, section 4.1). Blurred
and frozen frames score low as well: it says something beside PSNR, and as a ratio to the footage's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from spair_core.footage.references import median

Pixels = NDArray[np.uint8]
Flow = NDArray[np.float32]

GLASS_BLUR = 8.0
"""What is finer than this sigma, in pixels, is taken for residue on the glass."""
STANDING = 10.0
"""Levels by which something that stands still stands out."""


@dataclass(frozen=True)
class Motion:
    """From one frame to the next: `flow` float32 [H, W, 2] in pixels (x, y), and where both show the same
    thing, `seen` bool [H, W]."""

    flow: Flow
    seen: NDArray[np.bool_]

    @staticmethod
    def between(first: Pixels, second: Pixels) -> Motion:
        """By dense optical flow both ways. Give it frames as they came in, or the truth's."""
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        forward = dis.calc(grey[0], grey[1], None)  # type: ignore[call-overload]
        backward = dis.calc(grey[1], grey[0], None)  # type: ignore[call-overload]
        return Motion(forward, ~occluded(forward, backward))

    def brought(self, second: NDArray) -> NDArray[np.float32]:
        """The next frame [H, W] or [H, W, C] as seen from the first."""
        return warped(second.astype(np.float32), self.flow)


def warped(values: NDArray[np.float32], flow: Flow) -> NDArray[np.float32]:
    """Float32 [H, W] or [H, W, C] taken at each place plus its flow, bilinearly."""
    rows, columns = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    at = columns + flow[..., 0], rows + flow[..., 1]
    return np.asarray(cv2.remap(values, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def occluded(forward: Flow, backward: Flow) -> NDArray[np.bool_]:
    """Where the next frame does not show what the first does, bool [H, W]: the flows do not lead back, or at
    motion boundaries (Lai et al., after Sundaram et al.)."""
    back = warped(backward, forward)
    lost = np.square(forward + back).sum(2)
    long = np.square(forward).sum(2) + np.square(back).sum(2)
    steep = sum(np.square(np.gradient(forward[..., k])).sum(0) for k in (0, 1))
    boundary = steep > 0.01 * np.square(forward).sum(2) + 0.002
    return np.asarray((lost > 0.01 * long + 0.5) | boundary)


def warping_error(first: Pixels, second: Pixels, motion: Motion) -> float:
    """Mean squared difference of RGB in [0, 1], summed over the channels, where both frames see the same; NaN
    where they never do."""
    if not motion.seen.any():
        return float("nan")
    apart = (first.astype(np.float64) - motion.brought(second)) / 255
    return float(np.square(apart).sum(2)[motion.seen].mean())


def flips(first: NDArray[np.bool_], second: NDArray[np.bool_], motion: Motion) -> float:
    """Share of the pixels seen in both frames whose mask bit is another in the next; NaN where none are."""
    if not motion.seen.any():
        return float("nan")
    moved = motion.brought(second.astype(np.uint8)) > 0.5
    return float((moved != first)[motion.seen].mean())


def standing(frames: Sequence[Pixels]) -> NDArray[np.float64]:
    """What stands still in about a second of frames, and is fine: [H, W, 3] in levels around 0."""
    fixed = median(frames).astype(np.float64)
    return np.asarray(fixed - cv2.GaussianBlur(fixed, (0, 0), GLASS_BLUR))


def residue(frames: Sequence[Pixels]) -> float:
    """Mean absolute level of what stands still and is fine: drops on the glass, and all else that does."""
    return float(np.abs(standing(frames)).mean())


def kept_contrast(restored: Sequence[Pixels], truth: Sequence[Pixels]) -> float:
    """How much of what truly stands still is left: the slope of the restored on the truth's, 1 if all of it.

    Markings, clocks and the bonnet must not be taken for drops. NaN where nothing stands out.
    """
    there, left = standing(truth), standing(restored)
    out = np.abs(there) > STANDING
    return float((there * left)[out].sum() / np.square(there)[out].sum()) if out.any() else float("nan")
