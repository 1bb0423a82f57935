"""Train on one device, from one file, without a cluster: where there is a GPU for minutes.

    python -m spair_core.learning.single footage.zip --start-from footage-light --minutes 9 --out run
    python -m spair_core.learning.single shadows.zip --task shadow --start-from rain-light --out run

Steps take crops out of windows of degraded frames (or pictures, where the task is none of footage), which
are drawn out of the pack (`spair_core.learning.pack`) meanwhile. Every minute, and at the end, OUT gets the
averaged weights in half precision (`weights.safetensors`, with their card) and what has been measured so far
(`curve.jsonl`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from spair_core import network, weights
from spair_core.degradations.catalogue import TASKS
from spair_core.inference import chosen
from spair_core.learning.learner import Learner
from spair_core.learning.pack import PackError, read_pack
from spair_core.learning.pool import Pool, PoolConfig
from spair_core.learning.settings import CropConfig, LearningConfig, Phase
from spair_core.network import Spair
from spair_core.weights import ModelCard, WeightsError

Config = TypeVar("Config")

WARM_UP = 100
"""Steps over which the learning rate rises."""
CURVE_EVERY = 50
"""Steps between two lines of the curve."""


@dataclass(frozen=True)
class SingleConfig:
    """How long both phases take, and how they learn."""

    minutes: float = 9.0
    """How long, all told."""
    localize: float = 0.25
    """Share of the time in which Net_L learns alone; then both do."""
    rate: float = 6e-4
    """Greatest learning rate; it falls to zero by half a cosine over each phase."""
    ema: float = 0.999
    """Decay of the averaged weights."""
    joint_bce: float = 0.1
    """Weight of Net_L's loss while both learn."""

    def learning(self, device: torch.device) -> LearningConfig:
        """Of both phases; in bfloat16 where the device has instructions for it."""
        return LearningConfig(
            learning_rate=self.rate,
            betas=(0.9, 0.99),
            schedule="cosine",
            ema=self.ema,
            joint_bce=self.joint_bce,
            precision=chosen("auto", device),
        )


@dataclass
class _Run:
    """What a run has given so far, and where it is kept."""

    out: Path
    card: ModelCard
    began: float
    steps: int = 0
    saved: float = 0.0

    def minutes(self) -> float:
        return (time.perf_counter() - self.began) / 60

    def keep(self, model: Spair) -> None:
        """Write the weights anew, in a piece."""
        facts = {"steps": str(self.steps), "minutes": f"{self.minutes():.1f}"}
        card = replace(self.card, provenance=self.card.provenance | facts)
        part = self.out / "weights.part"
        part.write_bytes(weights.save(model, card, torch.float16))
        part.replace(self.out / "weights.safetensors")
        self.saved = self.minutes()

    def tell(self, line: dict[str, Any]) -> None:
        """A line of the curve."""
        with (self.out / "curve.jsonl").open("a") as curve:
            curve.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def train(model: Spair, pool: Pool, config: SingleConfig, run: _Run) -> Spair:
    """Train on the pool's device for `config.minutes` from `run.began`; gives the averaged weights."""
    model = model.to(pool.device).train()
    if pool.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    localized = config.localize * config.minutes
    spans: tuple[tuple[Phase, float], ...] = (("localize", localized), ("joint", config.minutes))
    for phase, end in spans:
        if run.minutes() < end:
            model = _phase(model, phase, end, pool, config, run)
    run.keep(model)
    return model


def _phase(model: Spair, phase: Phase, end: float, pool: Pool, config: SingleConfig, run: _Run) -> Spair:
    learner = Learner(model, phase, config.learning(pool.device))
    pool.batch()  # what is waited for before the first step is not the schedule's
    begun, told, first = run.minutes(), time.perf_counter(), run.steps
    sums: dict[str, float] = {}
    last = first  # the step of the last line
    while (now := run.minutes()) < end:
        rate = warmed(run.steps - first) * learner.config.rate(now - begun, end - begun)
        for name, value in learner.step(pool.batch(), rate).items():
            sums[name] = sums.get(name, 0.0) + value
        run.steps += 1
        if run.steps % CURVE_EVERY == 0:
            taken, summed = time.perf_counter() - told, run.steps - last
            means = {name: round(value / summed, 5) for name, value in sums.items()}
            speed = {"crops_a_second": round(summed * pool.config.batch / taken, 1), "windows": pool.made}
            run.tell({"phase": phase, "step": run.steps, "minutes": round(now, 2), **means, **speed})
            sums, told, last = {}, time.perf_counter(), run.steps
        if now - run.saved >= 1:
            run.keep(learner.best)
    trained = Spair(model.config).to(pool.device)
    trained.load_state_dict(learner.best.state_dict())
    return trained.train()


def warmed(step: int) -> float:
    """Share of the learning rate that a step of a phase has."""
    return min(1.0, (step + 1) / WARM_UP)


def started_from(name: str | None, preset: str, *, references: bool, squeeze: bool = True) -> Spair:
    """The network, with shipped weights, those of a file, or random ones. Raises WeightsError."""
    base = network.PRESETS[preset]()
    config = replace(base, references=references, localizer=replace(base.localizer, squeeze=squeeze))
    if name is None:
        return Spair(config)
    data = weights.named(name)
    try:
        return network.grown(weights.load(data)[0], config)
    except ValueError as error:
        raise WeightsError(f"{name}: cannot be continued as {preset}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the flags and train."""
    flags = _parser().parse_args(arguments)
    began = time.perf_counter()
    config, drawn = told(SingleConfig, flags), told(PoolConfig, flags)
    check_crop(drawn.crop, drawn.window)
    try:
        pack = read_pack(flags.pack)
        model = started_from(flags.start_from, flags.preset, references=drawn.footage)
    except (PackError, WeightsError, OSError) as error:
        sys.exit(f"{error}")
    if not (pack.photographs or (pack.clips and drawn.footage)):
        wanted = "photographs or clips" if drawn.footage else "photographs"
        sys.exit(f"{flags.pack}: has nothing to learn {drawn.task} from; put {wanted} into it")
    flags.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "preset": flags.preset,
        "started from": flags.start_from or "random weights",
        "data": f"{len(pack.photographs)} photographs, {len(pack.clips)} clips, {len(pack.pairs)} pairs",
        "settings": json.dumps(asdict(drawn) | asdict(config)),
        "device": torch.cuda.get_device_name() if flags.device == "cuda" else flags.device,
    }
    run = _Run(flags.out, ModelCard(model.config, drawn.task, CropConfig.mask_threshold, facts), began)
    with closing(Pool(pack, drawn, torch.device(flags.device))) as pool:
        train(model, pool, config, run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spair_core.learning.single",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pack", type=Path, help="a file of python -m spair_core.learning.pack")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and the curve")
    parser.add_argument("--start-from", help="shipped weights or a model file; by default random ones")
    parser.add_argument("--preset", choices=("light", "full"), default="light", help="the network's size")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--task", choices=TASKS, default=PoolConfig.task, help="what is to be taken away")
    add_flags(parser, SingleConfig)
    add_flags(parser, PoolConfig, but=("task",))
    return parser


def add_flags(parser: argparse.ArgumentParser, config: type, but: Sequence[str] = ()) -> None:
    """A flag for each field of a flat dataclass of numbers, `but` some."""
    for field in fields(config):
        if field.name not in but:
            kind = type(field.default)
            name = f"--{field.name.replace('_', '-')}"
            parser.add_argument(name, type=kind, default=field.default, metavar=kind.__name__)


def told(config: type[Config], flags: argparse.Namespace) -> Config:
    """The dataclass that the flags tell of."""
    return config(**{field.name: getattr(flags, field.name) for field in fields(cast(Any, config))})


def check_crop(crop: int, window: int) -> None:
    """End with a word where crops do not fit the network, or their windows."""
    if crop % network.MULTIPLE or not crop <= window:
        sys.exit(f"--crop must be a multiple of {network.MULTIPLE} and at most --window ({window})")


if __name__ == "__main__":
    main()
