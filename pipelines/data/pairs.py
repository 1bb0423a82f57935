"""Pairs on storage as rows: read, checked and, for training, cut into tiles."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, groupby, repeat
from typing import Any, NamedTuple, TypeVar

import numpy as np
import ray.data
from numpy.typing import NDArray

from pipelines.data import layouts, shards
from pipelines.data.layouts import PairFiles
from pipelines.data.owners import LayoutName
from pipelines.media import medium, medium_of
from pipelines.services import storage
from pipelines.services.quarantine import Quarantine, QuarantinedError, unforeseen
from pipelines.services.storage import StorageError
from spair_core import images
from spair_core.degradations.crops import Example
from spair_core.footage import Reach, Window
from spair_core.images import Picture, PictureError

Decoded = TypeVar("Decoded")
FRAME_EVERY = 0.5
"""Seconds of a clip of which one frame becomes a row."""
FRAME_QUALITY = 95
"""JPEG quality of frames in shards."""


@dataclass(frozen=True)
class Tiling:
    """Square tiles of `size` pixels, neighbours sharing at least `overlap` of them."""

    size: int
    overlap: int

    def starts(self, length: int) -> list[int]:
        """Where the tiles of a side begin; the last is moved inwards, so that none is cut short."""
        last = max(length - self.size, 0)
        return [*range(0, last, self.size - self.overlap), last]


def read_rows(
    files: PairFiles, tiling: Tiling | None = None, every: float = FRAME_EVERY
) -> Iterator[dict[str, Any]]:
    """The shard row of a pair, every picture decoded once to be sure of it; or a row a tile of it.

    Of clips, a row (or tiles) of one frame in `every` seconds. Raises PictureError (damaged, unequal sizes)
    or StorageError, naming the file.
    """
    if medium_of(files.target) is medium("clip"):
        yield from _clip_rows(files, tiling, every)
        return
    uris = {"input": files.input, "target": files.target, "mask": files.mask}
    parts = {role: None if uri is None else storage.read_bytes(uri) for role, uri in uris.items()}
    example = _decode(files, parts)
    height, width = example.clean.shape[:2]
    if tiling is None or max(height, width) <= tiling.size:
        yield _row(files, files.key, parts, height, width)
        return
    pixels = {"input": example.degraded, "target": example.clean, "mask": example.mask}
    side = tiling.size
    for top in tiling.starts(height):
        for left in tiling.starts(width):
            cut = np.s_[top : top + side, left : left + side]
            tile = {
                role: None if whole is None else images.encode_png(whole[cut])
                for role, whole in pixels.items()
            }
            yield _row(files, f"{files.key}/y{top:04}x{left:04}", tile, min(side, height), min(side, width))


def _clip_rows(files: PairFiles, tiling: Tiling | None, every: float) -> Iterator[dict[str, Any]]:
    seen, clean = files.input or files.target, files.target if files.input else None
    with tempfile.TemporaryDirectory() as folder:
        try:
            frames = _frames(seen, folder, Reach())
            truths = repeat(None) if clean is None else _frames(clean, folder, None)
            last = -every
            for number, (frame, truth) in enumerate(_both(frames, truths, files)):
                if frame.seconds // every != last // every:
                    target = truth.window.pixels[truth.window.own[truth.place]]
                    yield from _frame_rows(files, number, frame.window.at(frame.place), target, tiling)
                last = frame.seconds
        except ValueError as error:
            raise PictureError(f"{seen}: {error}") from error


def _both(
    frames: Iterator[_Frame], truths: Iterator[_Frame | None], files: PairFiles
) -> Iterator[tuple[_Frame, _Frame]]:
    """Each frame with its clean one, or with itself. Raises ValueError where one clip has more of them."""
    number = -1
    for number, frame in enumerate(frames):
        truth = next(truths, None)
        if truth is None and files.input:
            raise ValueError(f"the clean clip {files.target} has no frame {number}")
        yield frame, truth or frame
    if files.input and next(truths, None) is not None:
        raise ValueError(f"it has no frame {number + 1}, which the clean clip {files.target} has")


class _Frame(NamedTuple):
    """The frame at a `place` of a window's own."""

    window: Window
    place: int
    seconds: float


def _frames(uri: str, folder: str, reach: Reach | None) -> Iterator[_Frame]:
    for piece in medium("clip").read(storage.fetch(uri, folder), reach):
        shown = piece.window.shown
        for place, seconds in enumerate(piece.seconds):
            yield _Frame(shown, place, seconds)


def _frame_rows(
    files: PairFiles, number: int, window: Window, clean: NDArray[np.uint8], tiling: Tiling | None
) -> Iterator[dict[str, Any]]:
    place = window.own[0]
    if clean.shape != window.pixels.shape[1:]:
        raise ValueError(f"its frames are {window.pixels.shape[1:3]}, the clean ones {clean.shape[:2]}")
    height, width = clean.shape[:2]
    side = tiling.size if tiling else max(height, width)
    for top in tiling.starts(height) if tiling else [0]:
        for left in tiling.starts(width) if tiling else [0]:
            cut = np.s_[top : top + side, left : left + side]
            kept = {
                "frames": [b"" if k == place else _jpeg(frame[cut]) for k, frame in enumerate(window.pixels)],
                "place": place,
                "neighbours": list(window.neighbours[0]),
                "beats": list(window.beats[0]),
            }
            degraded = _jpeg(window.pixels[place][cut]) if files.input else None
            parts = {"input": degraded, "target": _jpeg(clean[cut]), "mask": None}
            key = f"{files.key}/{number:06}" + (f"/y{top:04}x{left:04}" if tiling else "")
            yield _row(files, key, parts, min(side, height - top), min(side, width - left), kept)


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    return images.encode(Picture(np.ascontiguousarray(pixels), "JPEG"), quality=FRAME_QUALITY)


def _decode(files: PairFiles, parts: dict[str, bytes | None]) -> Example:
    degraded = _decoded(files.input, parts["input"], images.decode)
    clean = _decoded(files.target, parts["target"], images.decode)
    mask = _decoded(files.mask, parts["mask"], images.decode_mask)
    assert clean is not None
    try:
        return Example(degraded.pixels if degraded else None, clean.pixels, mask)
    except ValueError as error:
        raise PictureError(f"{files.input or files.target}: {error}") from error


def _decoded(uri: str | None, data: bytes | None, decode: Callable[[bytes], Decoded]) -> Decoded | None:
    try:
        return None if data is None else decode(data)
    except PictureError as error:
        raise PictureError(f"{uri}: {error}") from error


def _row(
    files: PairFiles,
    key: str,
    parts: dict[str, bytes | None],
    height: int,
    width: int,
    window: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "key": key,
        **parts,
        "height": height,
        "width": width,
        "task": files.task,
        "set": files.set,
        "split": files.split,
        "source": files.input or files.target,
        "digest": shards.row_digest([*parts.values(), *(window["frames"] if window else [])]),
        "window": window,
    }


def list_examples(
    uris: Sequence[str], *, layout: LayoutName = "folders", limit: int | None = None
) -> list[dict[str, Any]]:
    """What there is to judge on: items for `examples`, from shards, and from folders in a layout.

    Of a location that has a split `test`, only that is taken. `limit` bounds the pictures of a set of
    pairs, and the row groups of a shard so that at least as many remain. Raises StorageError.
    """
    packed = [uri for uri in uris if uri.endswith(".parquet") or shards.read_record(uri) is not None]
    folders = [uri for uri in uris if uri not in packed]
    groups = [{"group": asdict(group)} for uri in packed for group in _row_groups(uri, limit)]
    return [*groups, *_pair_items(folders, layout, limit)]


def examples(items: Sequence[dict[str, Any]], *, num_cpus: float = 1.0) -> ray.data.Dataset:
    """Shard rows of the items, lazily, with a column `error`: why a row cannot be used, or null."""
    stream = ray.data.from_items(list(items), override_num_blocks=min(len(items), 256))
    return stream.flat_map(_rows_of_item, fn_kwargs={"quarantine": Quarantine()}, num_cpus=num_cpus)


def _row_groups(uri: str, limit: int | None) -> Iterator[shards.RowGroup]:
    record = shards.read_record(uri) or {"shards": []}
    tested = any(shard["split"] == "test" for shard in record["shards"])
    groups = shards.list_row_groups([uri], "test" if tested else None)
    # Each shard by itself: the next one may be of another set.
    for _, of_shard in groupby(groups, key=lambda group: group.uri):
        yield from _enough(list(of_shard), limit)


def _enough(groups: list[shards.RowGroup], limit: int | None) -> list[shards.RowGroup]:
    """The first row groups that hold `limit` rows."""
    if limit is None:
        return groups
    before = accumulate((group.rows for group in groups), initial=0)
    return [group for group, rows in zip(groups, before, strict=False) if rows < limit]


def _pair_items(uris: Sequence[str], layout: LayoutName, limit: int | None) -> Iterator[dict[str, Any]]:
    listing = layouts.find(uris, layout, split="test", prefer="test")
    items: dict[str, list[dict[str, Any]]] = {}
    for files in listing.pairs:
        items.setdefault(files.set, []).append({"files": asdict(files)})
    for lost in listing.left_out:
        items.setdefault(lost.set, []).append({"left_out": asdict(lost)})
    for of_set in items.values():
        yield from of_set[:limit]


def _rows_of_item(item: dict[str, Any], quarantine: Quarantine) -> Iterator[dict[str, Any]]:
    if item.get("group"):
        yield from ({**row, "error": None} for row in shards.read_row_group(shards.RowGroup(**item["group"])))
    elif item.get("left_out"):
        lost = item["left_out"]
        yield _broken(lost["name"], lost["set"], lost["split"], lost["reason"])
    else:
        files = PairFiles(**item["files"])
        tiling = Tiling(**item["tiling"]) if item.get("tiling") else None
        every = item.get("every") or FRAME_EVERY
        try:
            with quarantine.hold(f"{files.set} {files.split} {files.key}"):
                yield from ({**row, "error": None} for row in read_rows(files, tiling, every))
        except (PictureError, StorageError, QuarantinedError) as error:
            yield _broken(files.key, files.set, files.split, str(error))
        except Exception as error:  # noqa: BLE001 (it is this item's alone)
            yield _broken(files.key, files.set, files.split, unforeseen(error))


def _broken(key: str, of_set: str, split: str, reason: str) -> dict[str, Any]:
    nothing = dict.fromkeys(shards.SCHEMA.names)
    return {**nothing, "key": key, "set": of_set, "split": split, "error": reason}
