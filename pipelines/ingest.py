"""Folders of pictures -> shards: read, check and pack through Ray Data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import ray.data

from pipelines import cluster, pairs, shards, storage
from pipelines.pairs import Labels, PairFiles
from pipelines.shards import Shard
from pipelines.storage import StorageError
from spair_core.images import PictureError


@dataclass(frozen=True)
class IngestConfig:
    """What to ingest, and where to."""

    source: str
    """Folder or prefix: of input/ and target/ (and mask/), or (--kind clean) of clean pictures."""
    destination: str
    """Where the shards go: a path or any URI, such as s3://bucket/shards/rain13k."""
    kind: Literal["pairs", "clean"] = "pairs"
    """`pairs`, or `clean`: pictures that training degrades anew each time it reads them."""
    task: Literal["rain", "raindrop", "shadow", "blur"] = "rain"
    """What degrades the pictures."""
    set: str | None = None
    """The set's name; by default that of the source folder."""
    split: Literal["train", "val", "test"] = "train"
    """The rows' split."""
    validation_share: float = 0.0
    """Share of the pictures (chosen by their names) that become split `val` instead."""
    limit: int | None = None
    """Take at most so many pictures, drawn by the seed."""
    shard_mb: int = 256
    """Size at which a shard is closed, in MB."""
    seed: int = 0
    """Seed of the order in the shards: a row group should be a random sample of the set."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share < 1:
            raise ValueError(
                f"validation_share is a share of the set, from 0 to below 1, not {self.validation_share}"
            )
        if self.shard_mb < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError("shard_mb and limit must be at least 1")


@dataclass
class IngestReport:
    """What became of the pictures: rows a split, shards written, and (name, reason) of those left out."""

    rows: dict[str, int] = field(default_factory=dict)
    shards: list[Shard] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def summary(self) -> str:
        """For people, every left-out picture by name."""
        lines = [f"left out: {name}: {reason}" for name, reason in self.left_out]
        counts = ", ".join(f"{count} {split}" for split, count in sorted(self.rows.items())) or "no"
        lines.append(
            f"ingested {counts} pictures in {len(self.shards)} shards; left out {len(self.left_out)}"
        )
        return "\n".join(lines)


def ingest(config: IngestConfig) -> IngestReport:
    """Write the shards and, last, the record that publishes them. The same source gives the same files.

    Raises StorageError where the source has nothing or the destination cannot be written, ValueError
    where no picture could be used.
    """
    discover = pairs.discover_pairs if config.kind == "pairs" else pairs.discover_clean
    listing = discover(config.source)
    storage.write_bytes(storage.join(config.destination, ".writable"), b"")
    storage.delete(storage.join(config.destination, ".writable"))
    chosen = _drawn(listing.pairs, config)
    cluster.connect()
    report = IngestReport(left_out=list(listing.left_out))
    _pack(_rows(chosen, config), config, report)
    if not report.shards:
        raise ValueError(f"no picture of {config.source} could be used:\n{report.summary()}")
    shards.commit(
        config.destination,
        report.shards,
        {"rows": report.rows, "left_out": report.left_out, "ingest": asdict(config)},
    )
    return report


def _drawn(files: list[PairFiles], config: IngestConfig) -> list[PairFiles]:
    order = np.random.default_rng(config.seed).permutation(len(files))[: config.limit]
    return [files[i] for i in order]


def _rows(chosen: list[PairFiles], config: IngestConfig) -> Iterator[dict[str, Any]]:
    name = config.set or storage.name_of(config.source)
    items = [
        {"files": asdict(files), "labels": asdict(Labels(config.task, name, _split(files.key, config)))}
        for files in chosen
    ]
    stream = ray.data.from_items(items, override_num_blocks=min(len(items), 256))
    stream.context.execution_options.preserve_order = True
    yield from stream.map(_read).iter_rows()


def _split(key: str, config: IngestConfig) -> str:
    drawn = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32
    return "val" if drawn < config.validation_share else config.split


def _read(item: dict[str, Any]) -> dict[str, Any]:
    try:
        row = pairs.read_pair(PairFiles(**item["files"]), Labels(**item["labels"]))
        return {**row, "error": None}
    except (PictureError, StorageError) as error:
        return {
            **dict.fromkeys([*shards.SCHEMA.names, "height", "width"]),
            "key": item["files"]["key"],
            "error": str(error),
        }


def _pack(rows: Iterator[dict[str, Any]], config: IngestConfig, report: IngestReport) -> None:
    open_rows: dict[str, list[dict[str, Any]]] = {}
    sizes: dict[str, int] = {}
    for row in rows:
        if row["error"] is not None:
            report.left_out.append((row["key"], row["error"]))
            continue
        split = row["split"]
        open_rows.setdefault(split, []).append(row)
        sizes[split] = sizes.get(split, 0) + shards.row_bytes(row)
        if sizes[split] >= config.shard_mb << 20:
            _close(open_rows.pop(split), config, report)
            sizes[split] = 0
    for left in open_rows.values():
        _close(left, config, report)


def _close(rows: list[dict[str, Any]], config: IngestConfig, report: IngestReport) -> None:
    for row in rows:
        row.pop("error")
        row["height"], row["width"] = int(row["height"]), int(row["width"])
    shard = shards.write_shard(config.destination, rows)
    report.shards.append(shard)
    split = rows[0]["split"]
    report.rows[split] = report.rows.get(split, 0) + shard.rows
