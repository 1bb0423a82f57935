"""Seconds a frame of footage on this machine: its references, and the network that takes them.

python -m spair_core.benchmark --sizes 360 640 720 1280
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import tyro

from spair_core.cost import streak_mask
from spair_core.footage import Reach, Window, references, references_on, windows
from spair_core.network import Spair, light


@dataclass(frozen=True)
class BenchmarkConfig:
    """What is timed."""

    sizes: tuple[tuple[int, int], ...] = ((360, 640), (720, 1280))
    """Heights and widths of frames."""
    density: float = 0.05
    """Share of marked pixels."""
    rounds: int = 5
    """Both are timed so often, in turns; medians are told."""
    threads: int = 1
    """CPU threads of each."""
    device: str = "cpu"
    """cpu or cuda."""


def main(config: BenchmarkConfig) -> None:
    """Print a line a size."""
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(config.threads)
    print(f"{'frame':>10} {'references':>11} {'network':>9} {'ratio':>6}")
    for height, width in config.sizes:
        beside, network = seconds(config, height, width)
        print(f"{width:>5}x{height:<4} {beside:>9.3f} s {network:>7.3f} s {beside / network:>6.2f}")


def seconds(config: BenchmarkConfig, height: int, width: int) -> tuple[float, float]:
    """Of the references of a frame, and of `light` with references at this density of streaks: medians."""
    device, window = torch.device(config.device), _window(height, width)
    base = light()
    squeezing = replace(base.localizer, squeeze=True)
    model = Spair(replace(base, references=True, localizer=squeezing)).eval().to(device)
    frame = torch.tensor(window.pixels[window.own[0]], device=device).permute(2, 0, 1)[None] / 255
    marked = streak_mask((height, width), config.density, np.random.default_rng(0))
    mask = torch.from_numpy(marked)[None, None].to(device)
    beside = frame.repeat(1, 2, 1, 1) + 0.01
    both: tuple[Callable[[], object], ...] = (
        (lambda: next(references(window)))
        if device.type == "cpu"
        else (lambda: references_on(window, device)),
        lambda: model(frame, mask, beside),
    )
    taken: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for number in range(config.rounds + 1):
            for work, times in zip(both, taken, strict=True):
                started = time.perf_counter()
                work()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if number:  # the first round warms up
                    times.append(time.perf_counter() - started)
    return statistics.median(taken[0]), statistics.median(taken[1])


def _window(height: int, width: int) -> Window:
    """A frame of a texture that glides past, with those around it."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (width + 200, height), interpolation=cv2.INTER_CUBIC)
    scene = np.asarray(wide, dtype=np.uint8)
    (whole,) = windows(((scene[:, 3 * k :][:, :width], k / 30) for k in range(61)), 61, Reach())
    return whole.at(30)


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig, description=__doc__))
