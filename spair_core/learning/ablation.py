"""What the references and squeezing bring: networks that learn alike, each shown less than the next.

    python -m spair_core.learning.ablation drives.zip --held-out others.zip --start-from rain-light

All begin from the same weights and take the same crops of the same windows in the same order, for the same
steps of Net_L alone and of both. What a network is not to see is given to it as the frame itself, so that all
have the same weights to learn with. They are judged on windows of drives that none has seen: behind streaks,
behind drops, and dry.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from spair_core.learning.judging import EQUAL
from spair_core.learning.learner import Batch, Learner
from spair_core.learning.pack import Pack, PackError, read_pack
from spair_core.learning.pool import Draws, PoolConfig, batch_of, crops_of
from spair_core.learning.settings import Phase
from spair_core.learning.single import SingleConfig, add_flags, check_crop, started_from, told, warmed
from spair_core.metrics import psnr_y
from spair_core.network import Spair
from spair_core.weights import WeightsError


@dataclass(frozen=True)
class Seen:
    """What a network has beside the frame: the aligned reference, the fixed one, squeeze-and-excitation."""

    aligned: bool = False
    fixed: bool = False
    squeeze: bool = False

    def of(self, batch: Batch) -> Batch:
        """What it is shown of a batch."""
        assert batch.references is not None
        aligned, fixed = batch.references.split(3, dim=1)
        shown = (
            aligned if self.aligned else batch.degraded,
            fixed if self.fixed else batch.degraded,
        )
        return replace(batch, references=torch.cat(shown, dim=1))


VARIANTS = {
    "x": Seen(),
    "x, r": Seen(aligned=True),
    "x, s": Seen(fixed=True),
    "x, r, s": Seen(aligned=True, fixed=True),
    "x, r, s, squeezed": Seen(aligned=True, fixed=True, squeeze=True),
}
"""By what the study calls them: the frame, its aligned reference, its fixed one."""


@dataclass(frozen=True)
class AblationConfig:
    """A budget, which is everyone's."""

    windows: int = 1000
    """Windows to learn from, drawn once."""
    judged: int = 48
    """Windows of each kind to be judged on."""
    localize: int = 400
    """Steps of Net_L alone,"""
    joint: int = 200
    """and of both."""
    batch: int = 8
    """Crops a step."""
    crop: int = 128
    """Their side in pixels, a multiple of 8."""
    window: int = 192
    """Side of the windows that they are cut from."""
    rate: float = 4e-4
    """Greatest learning rate; it falls to zero by half a cosine over each phase."""
    ema: float = 0.99
    """Decay of the averaged weights."""
    seed: int = 0
    """Of what is drawn."""

    def drawing(self, task: str, dry: float) -> PoolConfig:
        """Windows of drives alone, for a task."""
        return PoolConfig(
            task=task,
            dry=dry,
            clips=1.0,
            pairs=0.0,
            batch=self.batch,
            crop=self.crop,
            window=self.window,
            seed=self.seed,
        )


LEARNT = ("rain+raindrop", 0.3)
"""Task, and share of windows without any, of what is learnt from."""
JUDGED = {"streaks": ("rain", 0.0), "drops": ("raindrop", 0.0), "dry": ("rain", 1.0)}
"""The same of what is judged."""


def ablate(
    pack: Pack, held_out: Pack, start: str | None, config: AblationConfig, device: torch.device
) -> dict[str, dict[str, float]]:
    """Of each variant the scores of `judge` on each kind of windows. Raises WeightsError, and OSError where
    the file of the weights cannot be read, before anything is drawn."""
    for seen in VARIANTS.values():
        started_from(start, "light", references=True, squeeze=seen.squeeze)
    learnt = drawn(pack, config.drawing(*LEARNT), config.windows)
    judged = {
        kind: drawn(held_out, config.drawing(task, dry), config.judged, alone=0.0, seed=1)
        for kind, (task, dry) in JUDGED.items()
    }
    table = {}
    for name, seen in VARIANTS.items():
        model = learn(seen, learnt, start, config, device)
        scores = {kind: judge(model, seen, windows, config, device) for kind, windows in judged.items()}
        table[name] = {f"{kind} {score}": value for kind, of in scores.items() for score, value in of.items()}
        print(json.dumps({name: {key: round(value, 4) for key, value in table[name].items()}}), flush=True)
    return table


def drawn(pack: Pack, config: PoolConfig, count: int, *, alone: float | None = None, seed: int = 0) -> Tensor:
    """Windows uint8 [N, planes, S, S] of what is in a pack; a share `alone` is shown as stills."""
    draws, rng = Draws(pack, config), np.random.default_rng([config.seed, seed])
    if alone is not None:
        draws.crops = replace(draws.crops, alone=alone)
    return torch.from_numpy(np.stack([draws.window(rng) for _ in range(count)]))


def learn(
    seen: Seen, windows: Tensor, start: str | None, config: AblationConfig, device: torch.device
) -> Spair:
    """A network that has learnt from the windows what is seen of them; its averaged weights."""
    torch.manual_seed(config.seed)
    model = started_from(start, "light", references=True, squeeze=seen.squeeze).to(device).train()
    drawing, random = config.drawing(*LEARNT), torch.Generator().manual_seed(config.seed)
    how = SingleConfig(rate=config.rate, ema=config.ema).learning(device)
    phases: tuple[tuple[Phase, int], ...] = (("localize", config.localize), ("joint", config.joint))
    for phase, steps in phases:
        learner = Learner(model, phase, how)
        for step in range(steps):
            rate = warmed(step) * how.rate(step, steps)
            learner.step(seen.of(crops_of(windows, drawing, random).to(device)), rate)
        model.load_state_dict(learner.best.state_dict())
    return model.eval()


@torch.inference_mode()
def judge(
    model: Spair, seen: Seen, windows: Tensor, config: AblationConfig, device: torch.device
) -> dict[str, float]:
    """`f1` of the mask over all windows, `marked`, the share of pixels in it, and `gain`, the mean dB of PSNR
    on Y by which windows are nearer to the clean ones than they came."""
    hits = found = wanted = pixels = 0
    gains = []
    drawing = config.drawing("rain", 0.0)
    for some in windows.split(config.batch):
        batch = seen.of(batch_of(some, drawing)).to(device)
        output = model(batch.degraded, references=batch.references)
        true = batch.mask > 0.5
        hits += int((output.mask & true).sum())
        found, wanted, pixels = (
            found + int(output.mask.sum()),
            wanted + int(true.sum()),
            pixels + true.numel(),
        )
        shown = (batch.degraded, output.restored, batch.clean)
        for before, after, clean in zip(*map(_levels, shown), strict=True):
            gains.append(min(psnr_y(after, clean), EQUAL) - min(psnr_y(before, clean), EQUAL))
    return {
        "f1": 2 * hits / max(found + wanted, 1),
        "marked": found / pixels,
        "gain": float(np.mean(gains)),
    }


def _levels(pictures: Tensor) -> np.ndarray:
    levels = (pictures.float().clamp(0, 1) * 255).round().byte()
    return levels.permute(0, 2, 3, 1).cpu().numpy()


def shown(table: Mapping[str, Mapping[str, float]]) -> str:
    """The scores as a table in Markdown."""
    lines = [
        "| seen | F1 in streaks | dB gained | F1 behind drops | dB gained | marked of dry ones | dB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of in table.items():
        scores = [f"{of[f'{kind} f1']:.3f} | {of[f'{kind} gain']:+.2f}" for kind in ("streaks", "drops")]
        dry = f"{of['dry marked']:.2%} | {of['dry gain']:+.2f}"
        lines.append(f"| {name} | {' | '.join(scores)} | {dry} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the flags, train all and print what each came to."""
    parser = argparse.ArgumentParser(
        prog="python -m spair_core.learning.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pack", type=Path, help="a file of python -m spair_core.learning.pack, with clips")
    parser.add_argument("--held-out", type=Path, required=True, help="another, to be judged on")
    parser.add_argument("--start-from", help="shipped weights or a model file; by default random ones")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    add_flags(parser, AblationConfig)
    flags = parser.parse_args(arguments)
    config = told(AblationConfig, flags)
    check_crop(config.crop, config.window)
    cv2.setNumThreads(1)
    try:
        pack, held_out = read_pack(flags.pack), read_pack(flags.held_out)
        if not (pack.clips and held_out.clips):
            sys.exit("both packs need clips of dry drives: they are what has neighbouring frames")
        table = ablate(pack, held_out, flags.start_from, config, torch.device(flags.device))
    except (PackError, WeightsError, OSError) as error:
        sys.exit(f"{error}")
    print(shown(table))


if __name__ == "__main__":
    main()
