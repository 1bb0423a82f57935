"""Milliseconds a frame of footage on this machine: its references, the network, and all together.

    python -m spair_core.benchmark --sizes 640x360 1280x720 [--device cuda --precision bfloat16 [--replay]]

All three take turns; medians are told. `references` and `network` begin and end on the device. `whole` is
what restoring a run of frames takes: pixels go to the device, references are made, the network runs in
batches, and the restored frames come back; so it is no sum.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from spair_core import inference, memory, weights
from spair_core.cost import streak_mask
from spair_core.footage import Reach, Window, references, references_on, windows
from spair_core.gpu import tensor_of
from spair_core.inference import Chosen, type_of
from spair_core.network import lowered, replayed


@dataclass(frozen=True)
class BenchmarkConfig:
    """What is timed."""

    sizes: tuple[tuple[int, int], ...] = ((360, 640), (720, 1280))
    """Heights and widths of frames."""
    density: float = 0.05
    """Share of pixels that are streaks; about as many are found."""
    rounds: int = 5
    threads: int = 1
    """CPU threads."""
    run: int = 4
    """Frames of a run, restored together; more on a GPU."""
    device: str = "cpu"
    precision: Chosen = "float32"
    """Of the network's weights."""
    replay: bool = False
    """Whether a GPU replays what the network launches before the mask is known."""


@dataclass(frozen=True)
class Taken:
    """Medians, in milliseconds a frame."""

    references: float
    network: float
    whole: float


def measure(config: BenchmarkConfig, height: int, width: int) -> Taken:
    """Of frames of this size in streaks, by the shipped `footage-light`."""
    device, window = torch.device(config.device), _window(height, width, config)
    model = weights.load(weights.shipped("footage-light"))[0].to(device)
    model = lowered(model, type_of(config.precision))
    model = replayed(model) if config.replay else model
    batch = 1 if device.type == "cpu" else max(1, inference.BATCH_PIXELS // (height * width))
    shown = slice(window.own.start, min(window.own.stop, window.own.start + batch))
    frames = tensor_of(window.pixels[shown], device) / 255
    beside = tensor_of(np.stack(list(references(window)))[: len(frames)], device) / 255
    number = len(window.own)
    tasks: tuple[tuple[Callable[[], object], int], ...] = (
        (lambda: _references(window, device), number),
        (lambda: model(frames, references=beside), len(frames)),
        (lambda: inference.restore_window(model, window), number),
    )
    times: list[list[float]] = [[] for _ in tasks]
    with torch.inference_mode():
        for turn in range(config.rounds + 1):
            for (task, count), taken in zip(tasks, times, strict=True):
                started = time.perf_counter()
                task()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if turn:  # the first warms up
                    taken.append(1000 * (time.perf_counter() - started) / count)
    return Taken(*(statistics.median(taken) for taken in times))


def _references(window: Window, device: torch.device) -> object:
    return references_on(window, device) if device.type == "cuda" else list(references(window))


def _window(height: int, width: int, config: BenchmarkConfig) -> Window:
    """A run of frames of a texture that glides past, in streaks, with the frames around it."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (height // 8, width // 8, 3), dtype=np.uint8)
    scene = np.asarray(
        cv2.resize(coarse, (width + 400, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8
    )
    rain = [streak_mask((height, width), config.density, rng)[..., None].astype(np.uint8) for _ in range(8)]
    frames = ((scene[:, 3 * k :][:, :width] + 50 * rain[k % 8], k / 30) for k in range(80))
    runs = list(windows(frames, config.run, Reach()))
    return runs[len(runs) // 2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the flags and print a line a size."""
    default = BenchmarkConfig()
    parser = argparse.ArgumentParser(
        prog="python -m spair_core.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", nargs="+", type=_size, default=default.sizes, metavar="WIDTHxHEIGHT")
    parser.add_argument("--density", type=float, default=default.density, help="share of pixels in streaks")
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument("--threads", type=int, default=default.threads, help="CPU threads")
    parser.add_argument("--run", type=int, default=default.run, help="frames restored together")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default.device)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default=default.precision)
    parser.add_argument("--replay", action="store_true", help="what comes before the mask as one CUDA graph")
    flags = vars(parser.parse_args(arguments))
    config = BenchmarkConfig(**flags | {"sizes": tuple(flags["sizes"])})
    memory.keep_freed()  # as what restores does
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(config.threads)
    print(f"{'frame':>10} {'references':>11} {'network':>9} {'whole':>9}  frames a second")
    for height, width in config.sizes:
        taken = measure(config, height, width)
        times = f"{taken.references:>8.1f} ms {taken.network:>6.1f} ms {taken.whole:>6.1f} ms"
        print(f"{width:>5}x{height:<4} {times} {1000 / taken.whole:>8.1f}", flush=True)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(height), int(width)


if __name__ == "__main__":
    main()
