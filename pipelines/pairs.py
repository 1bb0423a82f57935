"""Folders of pairs: `input/` and `target/` (and perhaps `mask/`), the same file stem for a pair."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, islice
from typing import Any

import ray.data

from pipelines import shards, storage
from pipelines.storage import StorageError, StoredObject
from spair_core import images
from spair_core.images import PictureError

MASK_FOLDERS = ("mask", "label")


@dataclass(frozen=True)
class PairFiles:
    """One pair's locations; a clean picture that is yet to be degraded has no `input`."""

    key: str
    target: str
    input: str | None = None
    mask: str | None = None


@dataclass(frozen=True)
class Labels:
    """What the rows of a set say of themselves."""

    task: str
    set: str
    split: str


@dataclass(frozen=True)
class Listing:
    """The pairs of a folder, and what was left out: (name, reason)."""

    pairs: list[PairFiles] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def discover_pairs(uri: str) -> Listing:
    """The pairs below `uri`. Raises StorageError where it has no `input/` and `target/`."""
    roles = {"input": "input", "target": "target"} | dict.fromkeys(MASK_FOLDERS, "mask")
    found: dict[str, dict[str, StoredObject]] = {"input": {}, "target": {}, "mask": {}}
    twins: set[tuple[str, str]] = set()
    left_out: list[tuple[str, str]] = []
    for item in storage.list_objects(uri):
        folder, _, rest = item.key.partition("/")
        role = roles.get(folder)
        if role is None or not rest:
            continue
        stem, suffix = posixpath.splitext(rest)
        if suffix.lower() not in images.SUFFIXES:
            left_out.append((item.key, "not a picture by its ending"))
        elif stem in found[role]:
            # Which of the two was meant cannot be known, so neither is taken.
            left_out.append((item.key, f"has the same stem as {found[role][stem].key}"))
            twins.add((role, stem))
        else:
            found[role][stem] = item
    if not found["input"] or not found["target"]:
        raise StorageError(f"{uri}: pairs are expected as {uri}/input/NAME.png and {uri}/target/NAME.png")
    for role, stem in sorted(twins):
        left_out.append((found[role].pop(stem).key, "shares its stem with another file"))
    return _paired(found, left_out)


def _paired(found: dict[str, dict[str, StoredObject]], left_out: list[tuple[str, str]]) -> Listing:
    pairs = []
    for stem in sorted(found["input"].keys() | found["target"].keys()):
        degraded, clean, mask = (found[role].get(stem) for role in ("input", "target", "mask"))
        if degraded is None or clean is None:
            there, lacking = (clean, "input") if degraded is None else (degraded, "target")
            left_out.append((there.key if there else stem, f"has no partner in {lacking}/"))
        else:
            pairs.append(PairFiles(stem, clean.uri, degraded.uri, mask.uri if mask else None))
    return Listing(pairs, left_out)


def discover_clean(uri: str) -> Listing:
    """Every picture below `uri`, to be degraded when it is read. Raises StorageError."""
    listing = Listing()
    for item in storage.list_objects(uri):
        stem, suffix = posixpath.splitext(item.key)
        if suffix.lower() in images.SUFFIXES:
            listing.pairs.append(PairFiles(stem, item.uri))
        else:
            listing.left_out.append((item.key, "not a picture by its ending"))
    if not listing.pairs:
        raise StorageError(f"{uri}: holds no pictures ({', '.join(sorted(images.SUFFIXES))})")
    return listing


def read_pair(files: PairFiles, labels: Labels) -> dict[str, Any]:
    """A shard row of a pair, every picture decoded once to be sure of it.

    Raises PictureError (damaged, unequal sizes) or StorageError, naming the file.
    """
    parts = [
        None if uri is None else storage.read_bytes(uri) for uri in (files.input, files.target, files.mask)
    ]
    source = files.input or files.target
    row: dict[str, Any] = {
        "key": files.key,
        "input": parts[0],
        "target": parts[1],
        "mask": parts[2],
        **asdict(labels),
        "source": source,
        "digest": shards.row_digest(parts),
    }
    height, width = shards.decode_example(row).clean.shape[:2]
    return {**row, "height": height, "width": width}


def list_examples(uris: Sequence[str], *, limit: int | None = None) -> list[dict[str, Any]]:
    """What there is to judge on: items for `examples`, from shards, folders of pairs, or folders of those.

    `limit` bounds the pictures of a set of pairs, and the row groups of shards so that at least as
    many remain. Raises StorageError.
    """
    return [item for uri in uris for item in _items(uri, limit)]


def examples(items: Sequence[dict[str, Any]], *, num_cpus: float = 1.0) -> ray.data.Dataset:
    """Shard rows of the items, lazily, with a column `error`: why a row cannot be used, or null."""
    stream = ray.data.from_items(list(items), override_num_blocks=min(len(items), 256))
    return stream.flat_map(_rows_of_item, num_cpus=num_cpus)


def _items(uri: str, limit: int | None) -> list[dict[str, Any]]:
    if uri.endswith(".parquet") or shards.read_record(uri) is not None:
        return [{"group": asdict(group)} for group in _enough(shards.list_row_groups([uri]), limit)]
    return [item for folder in _pair_folders(uri) for item in islice(_pair_items(folder), limit)]


def _enough(groups: list[shards.RowGroup], limit: int | None) -> list[shards.RowGroup]:
    """The first row groups that hold `limit` rows."""
    if limit is None:
        return groups
    before = accumulate((group.rows for group in groups), initial=0)
    return [group for group, rows in zip(groups, before, strict=False) if rows < limit]


def _pair_folders(uri: str) -> list[str]:
    if storage.exists(storage.join(uri, "input")) and storage.exists(storage.join(uri, "target")):
        return [uri]
    folders = {item.key.split("/input/")[0] for item in storage.list_objects(uri) if "/input/" in item.key}
    if not folders:
        raise StorageError(f"{uri}: neither shards nor pairs: expected *.parquet, or input/ and target/")
    return [storage.join(uri, folder) for folder in sorted(folders)]


def _pair_items(uri: str) -> Iterator[dict[str, Any]]:
    labels = asdict(Labels(task="", set=storage.name_of(uri), split="test"))
    listing = discover_pairs(uri)
    for files in listing.pairs:
        yield {"files": asdict(files), "labels": labels}
    for name, reason in listing.left_out:
        yield {"left_out": name, "reason": reason, "labels": labels}


def _rows_of_item(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if item.get("group"):
        yield from ({**row, "error": None} for row in shards.read_row_group(shards.RowGroup(**item["group"])))
        return
    labels = Labels(**item["labels"])
    if item.get("left_out"):
        yield _broken(item["left_out"], labels, item["reason"])
        return
    files = PairFiles(**item["files"])
    try:
        yield {**read_pair(files, labels), "error": None}
    except (PictureError, StorageError) as error:
        yield _broken(files.key, labels, str(error))


def _broken(key: str, labels: Labels, reason: str) -> dict[str, Any]:
    nothing = dict.fromkeys(shards.SCHEMA.names)
    return {**nothing, "key": key, **asdict(labels), "error": reason}
