"""Windows of degraded frames or pictures, drawn out of a pack, and a pool of them: steps take crops of it.

Processes draw windows and a thread keeps the pool on the device filled, oldest out first; where steps are
faster than that, each window is used several times.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from spair_core.degradations.catalogue import degradations
from spair_core.degradations.crops import Example
from spair_core.degradations.degradation import Material
from spair_core.degradations.motion import BLUR, ShakeKernels
from spair_core.degradations.rain import RAIN, StreakLayers
from spair_core.degradations.shadows import SHADOW, ShadowMasks
from spair_core.footage import filmed_window
from spair_core.learning.learner import Batch
from spair_core.learning.pack import Pack, SharedPack
from spair_core.learning.samples import columns_of, crop_of, filmed
from spair_core.learning.settings import CropConfig

WIDTHS = {"degraded": 3, "clean": 3, "mask": 1, "references": 6}
"""Planes of a window in the pool, the references' last where there are any."""


@dataclass(frozen=True)
class PoolConfig:
    """What windows are drawn, how many are held, and the crops that steps take of them."""

    task: str = "rain+raindrop"
    """What is learnt to be taken away; networks of what footage has take references."""
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


class Draws:
    """Draws degraded windows of what is in a pack."""

    def __init__(self, pack: Pack, config: PoolConfig) -> None:
        self.pack, self.config = pack, config
        self.crops = CropConfig(crop_size=config.window, dry=config.dry, moved=config.moved)
        parts = degradations(config.task)
        self.pairs = [one for task, one in pack.pairs if any(task == part.name for part in parts)]
        self.material = _material(pack)

    def window(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """One of them: uint8 [planes, S, S] as `PoolConfig.planes` says."""
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

    def __init__(self, shared: SharedPack, config: PoolConfig) -> None:
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


def crops_of(windows: Tensor, config: PoolConfig, random: torch.Generator) -> Batch:
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


def batch_of(windows: Tensor, config: PoolConfig) -> Batch:
    """Windows uint8 [N, planes, H, W] as a step takes them."""
    parts = {name: windows[:, place].float() for name, place in config.planes.items()}
    references = parts["references"] / 255 if config.footage else None
    return Batch(parts["degraded"] / 255, parts["clean"] / 255, parts["mask"], references)


class Pool:
    """Windows on the device; a thread fills it, steps draw from it."""

    def __init__(self, pack: Pack, config: PoolConfig, device: torch.device) -> None:
        self.config, self.device = config, device
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
