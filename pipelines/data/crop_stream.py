"""Shards -> an epoch's batches of crops, through Ray Data.

An epoch is a plan, a pure function of (row groups, seed, epoch, rank, world): which row group is
read when and with which seed its crops are drawn. So a run that is resumed at an epoch sees just
what the unbroken one would have seen, on any number of nodes.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import count, islice
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import cv2
import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from pipelines.data.layouts import find
from pipelines.data.shards import RowGroup, decode_example, list_row_groups, read_row_group
from pipelines.services import storage
from pipelines.services.storage import StorageError
from spair_core import images
from spair_core.degradations.crops import Example
from spair_core.degradations.degradation import Material
from spair_core.degradations.motion import BLUR, ShakeKernels
from spair_core.degradations.rain import RAIN, StreakLayers
from spair_core.degradations.shadows import SHADOW, ShadowMasks
from spair_core.images import PictureError
from spair_core.learning import CropConfig, columns_of, crop_of, filmed

if TYPE_CHECKING:
    from spair_core.learning import Batch

BLOCKS_AHEAD = 200
"""Most tasks that one epoch is cut into; more only costs scheduling."""
LATE_SECONDS = 60.0
"""Without a crop for so long, an epoch says what it may be waiting for."""


@dataclass(frozen=True)
class Visit:
    """One reading of a row group: its crops are drawn with `seed`."""

    group: RowGroup
    seed: tuple[int, ...]


def plan_epoch(
    groups: Sequence[RowGroup],
    seed: int,
    epoch: int,
    *,
    crops: int,
    crops_per_picture: int,
    rank: int = 0,
    world: int = 1,
) -> list[Visit]:
    """The visits of one of `world` workers, which give it at least `crops` crops: whole passes over the
    groups, each in an order of its own, are dealt out to the workers in turn.

    Raises ValueError where the groups hold no picture.
    """
    if sum(group.rows for group in groups) * crops_per_picture <= 0:
        raise ValueError("the shards hold no pictures: ingest some first")
    visits: list[Visit] = []
    planned = 0
    dealt = islice(_passes(groups, seed, epoch), rank, None, world)
    while planned < crops:
        visits.append(next(dealt))
        planned += visits[-1].group.rows * crops_per_picture
    return visits


def _passes(groups: Sequence[RowGroup], seed: int, epoch: int) -> Iterator[Visit]:
    """Visits to all groups, again and again."""
    for number in count():
        for position in np.random.default_rng([seed, epoch, number]).permutation(len(groups)):
            yield Visit(groups[position], (seed, epoch, number, int(position)))


def epoch_batches(
    groups: Sequence[RowGroup],
    config: CropConfig,
    epoch: int,
    *,
    batch_size: int,
    steps: int,
    rank: int = 0,
    world: int = 1,
    references: bool = False,
) -> Iterator[Batch]:
    """`steps` batches for one of `world` workers, who share the `batch_size` crops of a step.

    With `references`, frames come beside theirs, and of some clean pictures a camera makes footage. A picture
    that cannot be decoded is left out and the plan goes on beyond it.
    Raises ValueError where too few pictures of the shards can be read.
    """
    from spair_core.learning import to_batch  # with torch, which those who read do without

    size, larger = divmod(batch_size, world)
    size += rank < larger
    # A worker's part of half a pass more than needed: unreadable pictures must not end an epoch early.
    spare = sum(group.rows for group in groups) * config.crops_per_picture / (2 * world)
    visits = plan_epoch(
        groups,
        config.seed,
        epoch,
        crops=math.ceil(1.1 * steps * size + spare),
        crops_per_picture=config.crops_per_picture,
        rank=rank,
        world=world,
    )
    items = [{**asdict(visit.group), "seed": list(visit.seed)} for visit in visits]
    stream = ray.data.from_items(items, override_num_blocks=min(len(items), BLOCKS_AHEAD))
    stream.context.execution_options.preserve_order = True
    crops = stream.map_batches(
        _crops_of_visit, batch_size=1, fn_kwargs={"config": config, "references": references}
    )
    batches = crops.iter_batches(batch_size=size, prefetch_batches=2, drop_last=True)
    given = 0
    late = threading.Timer(LATE_SECONDS, _tell_late)
    late.daemon = True
    late.start()
    try:
        for arrays in islice(batches, steps):
            late.cancel()
            given += 1
            yield to_batch(arrays)
    finally:
        late.cancel()
    if given < steps:
        raise ValueError(f"epoch {epoch}: only {given} of {steps} batches could be read from the shards")


def _tell_late() -> None:
    free, all_of_them = (
        found.get("CPU", 0) for found in (ray.available_resources(), ray.cluster_resources())
    )
    print(
        f"no crop has come for {LATE_SECONDS:g} s: reading takes a whole CPU of a node, and of the cluster's "
        f"{all_of_them:g} {free:g} are free; give the workers fewer (--cpus-per-worker), or add a node",
        flush=True,
    )


def _crops_of_visit(
    batch: dict[str, NDArray[Any]], config: CropConfig, references: bool
) -> dict[str, NDArray[Any]]:
    cv2.setNumThreads(1)  # a task has one CPU
    group = RowGroup(str(batch["uri"][0]), int(batch["index"][0]), int(batch["rows"][0]))
    rng = np.random.default_rng([int(part) for part in batch["seed"][0]])
    examples = list(read_examples(group))
    crops = [
        crop_example(filmed(example, config, rng, task) if references else example, config, rng, task)
        for _ in range(config.crops_per_picture)
        for example, task in examples
    ]
    columns = [
        columns_of(crop, with_references=references, alone=rng.random() < config.alone) for crop in crops
    ]
    if not columns:
        nothing = columns_of(_nothing(config.crop_size), with_references=references)
        return {name: array[None][:0] for name, array in nothing.items()}
    return {name: np.stack([column[name] for column in columns]) for name in columns[0]}


def _nothing(size: int) -> Example:
    black = np.zeros((size, size, 3), np.uint8)
    return Example(black, black, black[..., 0] > 0)


def crop_example(
    example: Example, config: CropConfig, rng: np.random.Generator, task: str = "rain"
) -> Example:
    """`crop_of` with the configured material. Raises StorageError where that cannot be read."""
    clean = example.degraded is None
    material = _material(config.layers, config.shadow_masks, config.shakes) if clean else {}
    return crop_of(example, config, rng, task, material)


def read_examples(group: RowGroup) -> Iterator[tuple[Example, str]]:
    """The decodable examples of a row group, each with its task (ingest has checked them; what broke
    since is left out)."""
    for row in read_row_group(group):
        try:
            yield decode_example(row), row["task"]
        except PictureError:
            continue


def check_material(config: CropConfig) -> None:
    """A look at whether the configured material is there. Raises StorageError where it is not."""
    if config.layers:
        list_row_groups([config.layers])
    if config.shadow_masks:
        storage.check_source(config.shadow_masks)
    if config.shakes:
        _shake_kernels(config.shakes)


@lru_cache(maxsize=2)
def _material(layers: str | None, shadow_masks: str | None, shakes: str | None) -> dict[str, Material]:
    """What is real of each task, where there is any."""
    material: dict[str, Material] = {}
    if layers:
        material[RAIN.name] = _streak_layers(layers)
    if shadow_masks:
        material[SHADOW.name] = _shadow_masks(shadow_masks)
    if shakes:
        material[BLUR.name] = _shake_kernels(shakes)
    return material


def _streak_layers(uri: str) -> StreakLayers:
    examples = [example for group in list_row_groups([uri]) for example, _ in read_examples(group)]
    return StreakLayers((e.degraded, e.clean) for e in examples if e.degraded is not None)


def _shadow_masks(uri: str) -> ShadowMasks:
    masks = []
    for files in find([uri], "clean").pairs:
        try:
            masks.append(images.decode_mask(storage.read_bytes(files.target)))
        except PictureError as error:
            raise StorageError(f"{files.target}: is not a shadow mask ({error})") from error
    return ShadowMasks(masks)


def _shake_kernels(uri: str) -> ShakeKernels:
    try:
        kernels = np.load(io.BytesIO(storage.read_bytes(uri)))
        return ShakeKernels(kernels[name] for name in kernels.files)
    except (ValueError, AttributeError, EOFError, BadZipFile) as error:
        raise StorageError(
            f"{uri}: is no NPZ file of blur kernels, as numpy.savez writes: {error}"
        ) from error
