"""Folders of pictures -> shards: read, check and pack through Ray Data."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from pipelines.data import layouts, pairs, shards
from pipelines.data.layouts import Listing, PairFiles
from pipelines.data.owners import LAYOUTS, LayoutName
from pipelines.data.pairs import Tiling
from pipelines.data.shards import Shard
from pipelines.services import cluster, storage
from spair_core.degradations.catalogue import Task


@dataclass(frozen=True)
class IngestConfig:
    """What to ingest, and where to."""

    source: str
    """Root of the set (or its train/ or test/ folder, or a folder that holds it): a path or any URI."""
    destination: str | None = None
    """Where the shards go: a path or any URI, such as s3://bucket/shards/rain13k."""
    layout: LayoutName = "folders"
    """How the source is laid out: `folders` with input/ and target/ (and mask/), the set's own layout as
    its owners ship it, or `clean`: pictures that training degrades anew each time it reads them."""
    dry_run: bool = False
    """Only say what is there, missing or without a partner; nothing is written, and none is opened."""
    task: Task | None = None
    """What degrades the pictures; by default what the layout's set is about (`folders`: rain)."""
    set: str | None = None
    """The set's name; by default its own, or that of the source folder."""
    split: Literal["train", "val", "test"] | None = None
    """Take only this split; of a layout without splits (`folders`, `clean`), call the rows so (train)."""
    validation_share: float = 0.0
    """About this share of the training pictures (chosen by their names) becomes split `val` instead. What
    shows the same stays together: whole sequences, clips and scenes of sets that have them, and in layout
    `folders` whole folders below input/."""
    limit: int | None = None
    """Take at most so many pictures of each set and split, drawn by the seed."""
    tile: int = 0
    """Cut larger training pictures into tiles of so many pixels a side, so that a crop is read without
    decoding a whole frame; 0 leaves them whole. An epoch then has as many crops as there are tiles.
    Pictures of other splits are never cut."""
    tile_overlap: int = 128
    """Pixels that neighbouring tiles share: with the crop size, every crop of the picture is in some tile."""
    every: float = pairs.FRAME_EVERY
    """Of clips, take one frame in so many seconds, with those around it."""
    shard_mb: int = 256
    """Size at which a shard is closed, in MB."""
    seed: int = 0
    """Seed of the order in the shards: a row group should be a random sample of the set."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share < 1:
            raise ValueError(
                f"validation_share is a share of the set, from 0 to below 1, not {self.validation_share}"
            )
        if self.shard_mb < 1 or self.every <= 0 or (self.limit is not None and self.limit < 1):
            raise ValueError("shard_mb and limit must be at least 1, every above 0")
        if self.tile and not 0 <= self.tile_overlap < self.tile:
            raise ValueError(
                f"tile must be 0 or above tile_overlap, not {self.tile} with {self.tile_overlap}"
            )
        if self.destination is None and not self.dry_run:
            raise ValueError("say where the shards go with --destination, or look first with --dry-run")


@dataclass
class IngestReport:
    """What was found, and what became of it: rows a split, shards, (name, reason) of what was left out."""

    found: Listing
    rows: Counter[str] = field(default_factory=Counter)
    shards: list[Shard] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def summary(self) -> str:
        """For people, every left-out picture by name."""
        lines = [f"left out: {name}: {reason}" for name, reason in self.left_out]
        counts = ", ".join(f"{count} {split}" for split, count in sorted(self.rows.items())) or "no"
        lines.append(
            f"ingested {counts} rows in {len(self.shards)} shards; left out {len(self.left_out)}, "
            f"outside the layout {len(self.found.others)}"
        )
        return "\n".join(lines)


def find(config: IngestConfig) -> Listing:
    """What there is to ingest, with its labels. Raises StorageError, or ValueError for a wrong split."""
    listing = layouts.find([config.source], config.layout, split=config.split or "train")
    if config.split is not None:
        found = sorted({files.split for files in listing.pairs})
        listing = listing.of_split(config.split)
        if not listing.pairs:
            raise ValueError(f"{config.source}: has no split {config.split}, only {', '.join(found)}")
    names = sorted({files.set for files in listing.pairs})
    if config.layout == "folders" and len(names) > 1:
        raise ValueError(
            f"{config.source}: holds several folders of pairs ({', '.join(names)}): ingest them one at a "
            "time, or say with --layout whose set it is"
        )
    held_out = _held_out(listing.pairs, config)
    return replace(listing, pairs=[_labelled(files, config, held_out) for files in listing.pairs])


def _labelled(files: PairFiles, config: IngestConfig, held_out: Set[str]) -> PairFiles:
    split = "val" if files.split == "train" and files.key in held_out else files.split
    return replace(files, task=config.task or files.task, set=config.set or files.set, split=split)


def _held_out(found: Sequence[PairFiles], config: IngestConfig) -> Set[str]:
    """Names of the training pictures that become split `val`: whole scenes, for neighbouring frames are all
    but the same."""
    layout = LAYOUTS[config.layout]
    scenes: dict[str, list[str]] = {}
    for files in found:
        if files.split == "train":
            scenes.setdefault(layout.scene_of(files.key), []).append(files.key)
    if len(scenes) == 1:  # nothing else can be held out than a part of it
        scenes = {key: [key] for keys in scenes.values() for key in keys}
    chosen = {scene for scene in scenes if _by_chance(scene) < config.validation_share}
    if config.validation_share and len(scenes) > 1 and not chosen:
        chosen = {min(scenes, key=_by_chance)}  # of few scenes, chance may choose none
    return {key for scene in chosen for key in scenes[scene]}


def _by_chance(name: str) -> float:
    """A number in [0, 1) that is always the same of a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32


def ingest(config: IngestConfig) -> IngestReport:
    """Write the shards and, last, the record that publishes them. The same source gives the same files.

    Raises StorageError where the source has nothing or the destination cannot be written, ValueError
    where no picture could be used.
    """
    if config.dry_run or config.destination is None:
        raise ValueError("a dry run writes nothing: what there is to ingest, `find` tells")
    cluster.check_answers()
    storage.check_writable(config.destination)
    found = find(config)
    cluster.connect()
    report = IngestReport(found, left_out=[(item.name, item.reason) for item in found.left_out])
    _pack(_rows(_drawn(found.pairs, config), config), config.destination, config, report)
    if not report.shards:
        raise ValueError(f"no picture of {config.source} could be used:\n{report.summary()}")
    shards.commit(
        config.destination,
        report.shards,
        {"rows": report.rows, "left_out": report.left_out, "ingest": asdict(config)},
    )
    return report


def _drawn(files: list[PairFiles], config: IngestConfig) -> list[PairFiles]:
    """The pictures in random order within each set and split, which follow one another."""
    groups: dict[tuple[str, str], list[PairFiles]] = {}
    for i in np.random.default_rng(config.seed).permutation(len(files)):
        groups.setdefault((files[i].set, files[i].split), []).append(files[i])
    return [one for label in sorted(groups) for one in groups[label][: config.limit]]


def _rows(chosen: list[PairFiles], config: IngestConfig) -> Iterator[dict[str, Any]]:
    tiling = asdict(Tiling(config.tile, config.tile_overlap)) if config.tile else None
    stream = pairs.examples(
        [
            {
                "files": asdict(files),
                "tiling": tiling if files.split == "train" else None,
                "every": config.every,
            }
            for files in chosen
        ]
    )
    stream.context.execution_options.preserve_order = True
    yield from stream.iter_rows()


def _pack(
    rows: Iterator[dict[str, Any]], destination: str, config: IngestConfig, report: IngestReport
) -> None:
    waiting: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        error = row.pop("error")
        if error is not None:
            report.left_out.append((row["key"], error))
            continue
        if waiting and (size >= config.shard_mb << 20 or _label(row) != _label(waiting[0])):
            _close(waiting, destination, config, report)
            waiting, size = [], 0
        waiting.append(row)
        size += shards.row_bytes(row)
    if waiting:
        _close(waiting, destination, config, report)


def _label(row: dict[str, Any]) -> tuple[str, str]:
    return row["set"], row["split"]


def _close(rows: list[dict[str, Any]], destination: str, config: IngestConfig, report: IngestReport) -> None:
    # The tiles of a picture follow one another; a row group should hold those of many.
    order = np.random.default_rng([config.seed, len(report.shards)]).permutation(len(rows))
    shuffled = [{**rows[i], "height": int(rows[i]["height"]), "width": int(rows[i]["width"])} for i in order]
    report.shards.append(shards.write_shard(destination, shuffled))
    report.rows[rows[0]["split"]] += len(rows)
