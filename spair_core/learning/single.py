"""Train on one device, from one file, without a cluster: where there is a GPU for minutes.

    python -m spair_core.learning.single footage.zip --start-from footage-light --minutes 9 --out run
    python -m spair_core.learning.single shadows.zip --task shadow --start-from rain-light --out run

Processes make windows of degraded frames (or pictures, where the task is none of footage) of what is in the
pack (`spair_core.learning.pack`) and keep a pool of them on the device filled, oldest out first; steps take
crops out of it, each window several times where they are faster. Every minute, and at the end, OUT gets the
averaged weights in half precision (`weights.safetensors`, with their card) and what has been measured so far
(`curve.jsonl`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from spair_core import network, weights
from spair_core.degradations.catalogue import DEGRADATIONS, JOINT, degradations
from spair_core.degradations.crops import Example
from spair_core.degradations.degradation import Material
from spair_core.degradations.motion import BLUR, ShakeKernels
from spair_core.degradations.rain import RAIN, StreakLayers
from spair_core.degradations.shadows import SHADOW, ShadowMasks
from spair_core.footage import filmed_window
from spair_core.inference import chosen
from spair_core.learning.learner import Batch, Learner, LearningConfig, Phase
from spair_core.learning.pack import Pack, PackError, SharedPack, read_pack
from spair_core.learning.samples import CropConfig, columns_of, crop_of, filmed
from spair_core.network import Spair
from spair_core.weights import ModelCard, WeightsError

Config = TypeVar("Config")

WIDTHS = {"degraded": 3, "clean": 3, "mask": 1, "references": 6}
"""Planes of a window in the pool, the references' last where there are any."""
WARM_UP = 100
"""Steps over which the learning rate rises."""
CURVE_EVERY = 50
"""Steps between two lines of the curve."""


@dataclass(frozen=True)
class SingleConfig:
    """A training on one device."""

    task: str = "rain+raindrop"
    """What is learnt to be taken away; networks of what footage has take references."""
    minutes: float = 9.0
    """How long, all told."""
    localize: float = 0.25
    """Share of the time in which Net_L learns alone; then both do."""
    batch: int = 32
    """Crops a step."""
    crop: int = 192
    """Their side in pixels, a multiple of 8."""
    window: int = 256
    """Side of the windows that they are cut from."""
    pool: int = 4096
    """Most windows held on the device."""
    begin: int = 256
    """Windows that are waited for before the first step."""
    clips: float = 0.38
    """Share of windows that are of dry drives, where the pack has any,"""
    pairs: float = 0.14
    """and that are of real pairs; the others are of photographs."""
    dry: float = 0.3
    """Share of windows without rain or drops."""
    moved: float = 0.4
    """Share of photographs that a simulated camera moves before; the others are stills."""
    rate: float = 6e-4
    """Greatest learning rate; it falls to zero by half a cosine over each phase."""
    ema: float = 0.999
    """Decay of the averaged weights."""
    joint_bce: float = 0.1
    """Weight of Net_L's loss while both learn."""
    workers: int = 0
    """Processes that make windows; 0: all cores but the two that keep the device busy."""
    seed: int = 0
    """Of what is drawn."""

    @property
    def footage(self) -> bool:
        """Whether frames are learnt from beside their references."""
        return any(part.over for part in degradations(self.task))

    @property
    def planes(self) -> dict[str, slice]:
        """Of a window in the pool."""
        names = list(WIDTHS) if self.footage else list(WIDTHS)[:-1]
        ends = np.cumsum([WIDTHS[name] for name in names]).tolist()
        return {name: slice(end - WIDTHS[name], end) for name, end in zip(names, ends, strict=True)}

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


class Draws:
    """Draws degraded windows of what is in a pack."""

    def __init__(self, pack: Pack, config: SingleConfig) -> None:
        self.pack, self.config = pack, config
        self.crops = CropConfig(crop_size=config.window, dry=config.dry, moved=config.moved)
        parts = degradations(config.task)
        self.pairs = [one for task, one in pack.pairs if any(task == part.name for part in parts)]
        self.material = _material(pack)

    def window(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """One of them: uint8 [planes, S, S] as `SingleConfig.planes` says."""
        config = self.config
        crop = crop_of(self._example(rng), self.crops, rng, config.task, self.material)
        alone = rng.random() < self.crops.alone
        columns = columns_of(crop, with_references=config.footage, alone=alone)
        planes = [columns[name].reshape(*crop.clean.shape[:2], -1) for name in config.planes]
        return np.ascontiguousarray(np.concatenate(planes, axis=2, dtype=np.uint8).transpose(2, 0, 1))

    def _example(self, rng: np.random.Generator) -> Example:
        kind = rng.random()
        if self.pairs and kind < self.config.pairs:
            return self.pairs[rng.integers(len(self.pairs))]
        films = self.pack.clips if self.config.footage else ()
        if films and (kind < self.config.pairs + self.config.clips or not self.pack.photographs):
            clip = self.pack.clips[rng.integers(len(self.pack.clips))]
            window = filmed_window(clip.frames, clip.rate, self.config.window, rng)
            return Example(None, window.pixels[window.own[0]], window=window)
        photo = self.pack.photographs[rng.integers(len(self.pack.photographs))]
        return filmed(Example(None, photo), self.crops, rng, self.config.task)


def _material(pack: Pack) -> Mapping[str, Material]:
    """What is real of each task in the pack, to lay over its clean pictures."""
    material: dict[str, Material] = {}
    rainy = [(one.degraded, one.clean) for task, one in pack.pairs if task == RAIN.name]
    if streaks := [(degraded, clean) for degraded, clean in rainy if degraded is not None]:
        material[RAIN.name] = StreakLayers(streaks)
    if pack.shadow_masks:
        material[SHADOW.name] = ShadowMasks(pack.shadow_masks)
    if pack.shakes:
        material[BLUR.name] = ShakeKernels(pack.shakes)
    return material


class Windows(IterableDataset[Tensor]):
    """What processes draw, each without end."""

    def __init__(self, shared: SharedPack, config: SingleConfig) -> None:
        self.shared, self.config = shared, config

    def __iter__(self) -> Iterator[Tensor]:
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.config.seed, info.id if info else 0])
        cv2.setNumThreads(1)
        draws = Draws(self.shared.pack(), self.config)
        while True:
            yield torch.from_numpy(draws.window(rng))


def _give_way(_: int) -> None:
    os.nice(10)  # steps go first: they keep the device busy


def crops_of(windows: Tensor, config: SingleConfig, random: torch.Generator) -> Batch:
    """A batch out of windows uint8 [N, planes, S, S], drawn at random, mirrored left to right at random."""
    which = torch.randint(len(windows), (config.batch,), generator=random)
    most = config.window - config.crop
    top, left = torch.randint(most + 1, (2, config.batch, 1), generator=random)
    line = torch.arange(config.crop)
    columns = left + line
    mirrored = torch.rand(config.batch, 1, generator=random) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    at = [part.to(windows.device, non_blocking=True) for part in (which, top + line, columns)]
    crops = windows.permute(0, 2, 3, 1)[at[0][:, None, None], at[1][:, :, None], at[2][:, None, :]]
    return batch_of(crops.permute(0, 3, 1, 2), config)


def batch_of(windows: Tensor, config: SingleConfig) -> Batch:
    """Windows uint8 [N, planes, H, W] as a step takes them."""
    parts = {name: windows[:, place].float() for name, place in config.planes.items()}
    references = parts["references"] / 255 if config.footage else None
    return Batch(parts["degraded"] / 255, parts["clean"] / 255, parts["mask"], references)


class Pool:
    """Windows on the device; a thread fills it, steps draw from it."""

    def __init__(self, pack: Pack, config: SingleConfig, device: torch.device) -> None:
        self.config = config
        workers = config.workers or max(1, (os.cpu_count() or 1) - 2)
        self._shared = SharedPack(pack)
        loader = DataLoader(
            Windows(self._shared, config),
            8,
            num_workers=workers,
            multiprocessing_context="forkserver",  # OpenCV's threads do not outlive a fork
            worker_init_fn=_give_way,
        )
        self.made = self.drawn = 0
        self._coming = iter(loader)
        self.windows = torch.empty(
            config.pool,
            config.planes[list(config.planes)[-1]].stop,
            config.window,
            config.window,
            dtype=torch.uint8,
            device=device,
        )
        self._random = torch.Generator().manual_seed(config.seed)
        self._stopped = False
        self._filling = ThreadPoolExecutor(1).submit(self._fill)

    def _fill(self) -> None:
        for coming in self._coming:
            while self.made > self.drawn + self.config.begin and not self._stopped:
                time.sleep(0.05)  # more windows than crops are of no use
            if self._stopped:
                return
            places = (torch.arange(len(coming)) + self.made) % self.config.pool
            self.windows[places.to(self.windows.device)] = coming.to(self.windows.device)
            self.made += len(coming)

    def batch(self) -> Batch:
        """Crops of windows drawn at random, mirrored left to right at random."""
        self._wait()
        self.drawn += self.config.batch
        return crops_of(self.windows[: min(self.made, self.config.pool)], self.config, self._random)

    def _wait(self) -> None:
        while self.made < min(self.config.begin, self.config.pool) and not self._filling.done():
            time.sleep(0.05)
        if self._filling.done():  # it never ends by itself
            self._filling.result()

    def close(self) -> None:
        """Stop making windows."""
        self._stopped = True
        wait([self._filling], timeout=30)
        del self._coming


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


def train(model: Spair, pack: Pack, config: SingleConfig, device: torch.device, run: _Run) -> Spair:
    """Train `model` on `device` for `config.minutes` from `run.began`; gives the averaged weights."""
    pool = Pool(pack, config, device)
    model = model.to(device).train()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    localized = config.localize * config.minutes
    spans: tuple[tuple[Phase, float], ...] = (("localize", localized), ("joint", config.minutes))
    try:
        for phase, end in spans:
            if run.minutes() < end:
                model = _phase(model, phase, end, pool, config, run)
    finally:
        pool.close()
    run.keep(model)
    return model


def _phase(model: Spair, phase: Phase, end: float, pool: Pool, config: SingleConfig, run: _Run) -> Spair:
    learner = Learner(model, phase, config.learning(pool.windows.device))
    pool.batch()  # what is waited for before the first step is not the schedule's
    begun, told, first = run.minutes(), time.perf_counter(), run.steps
    sums: dict[str, float] = {}
    while (now := run.minutes()) < end:
        warm = min(1.0, (run.steps - first + 1) / WARM_UP)
        rate = warm * learner.config.rate(now - begun, end - begun)
        for name, value in learner.step(pool.batch(), rate).items():
            sums[name] = sums.get(name, 0.0) + value
        run.steps += 1
        if run.steps % CURVE_EVERY == 0:
            taken = time.perf_counter() - told
            means = {name: round(value / CURVE_EVERY, 5) for name, value in sums.items()}
            speed = {"crops_a_second": round(CURVE_EVERY * config.batch / taken, 1), "windows": pool.made}
            run.tell({"phase": phase, "step": run.steps, "minutes": round(now, 2), **means, **speed})
            sums, told = {}, time.perf_counter()
        if now - run.saved >= 1:
            run.keep(learner.best)
    trained = Spair(model.config).to(pool.windows.device)
    trained.load_state_dict(learner.best.state_dict())
    return trained.train()


def started_from(name: str | None, preset: str, *, references: bool, squeeze: bool = True) -> Spair:
    """The network, with shipped weights, those of a file, or random ones. Raises WeightsError."""
    base = network.PRESETS[preset]()
    config = replace(base, references=references, localizer=replace(base.localizer, squeeze=squeeze))
    if name is None:
        return Spair(config)
    file = Path(name)
    data = weights.shipped(name) if name in weights.shipped_names() else file.read_bytes()
    try:
        return network.grown(weights.load(data)[0], config)
    except ValueError as error:
        raise WeightsError(f"{name}: cannot be continued as {preset}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the flags and train."""
    flags = _parser().parse_args(arguments)
    began = time.perf_counter()
    config = told(SingleConfig, flags)
    check_crop(config.crop, config.window)
    try:
        pack = read_pack(flags.pack)
        model = started_from(flags.start_from, flags.preset, references=config.footage)
    except (PackError, WeightsError, OSError) as error:
        sys.exit(f"{error}")
    if not (pack.photographs or (pack.clips and config.footage)):
        wanted = "photographs or clips" if config.footage else "photographs"
        sys.exit(f"{flags.pack}: has nothing to learn {config.task} from; put {wanted} into it")
    flags.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "preset": flags.preset,
        "started from": flags.start_from or "random weights",
        "data": f"{len(pack.photographs)} photographs, {len(pack.clips)} clips, {len(pack.pairs)} pairs",
        "settings": json.dumps(asdict(config)),
        "device": torch.cuda.get_device_name() if flags.device == "cuda" else flags.device,
    }
    run = _Run(flags.out, ModelCard(model.config, config.task, CropConfig.mask_threshold, facts), began)
    train(model, pack, config, torch.device(flags.device), run)


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
    tasks = (*(one.name for one in DEGRADATIONS), *JOINT)
    parser.add_argument("--task", choices=tasks, default=SingleConfig.task, help="what is to be taken away")
    add_flags(parser, SingleConfig, but=("task",))
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
