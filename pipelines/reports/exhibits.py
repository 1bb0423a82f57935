"""Items to look at: before and after, what was changed, and of footage two seconds, all of it small."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.media import MediumError, medium_in, medium_of
from pipelines.restoration.manifest import Verdict
from pipelines.services import remote, storage
from pipelines.services.faults import UnavailableError
from pipelines.services.remote import Remote
from pipelines.services.storage import StorageError
from spair_core.images import eight_bit
from spair_core.masks import mask_from_pair

SIDE = 640
"""Longest side of a picture, in pixels."""
MOTION_SIDE = 320
MOTION_SECONDS = 2.0
MOTION_FRAMES = 16
"""Of an excerpt: the longest side of each half, its length, and its frames at most."""
MOST_BYTES = 256 << 20
"""Larger sources are not fetched."""
COLOUR = (230, 0, 126)
"""Of what was changed."""
QUALITY = 80

Frames = list[tuple[NDArray[np.uint8], float]]
"""Pixels uint8 [H, W, 3], and seconds."""


@dataclass(frozen=True)
class Exhibit:
    """An item with its pictures, or `trouble`: why it has none.

    `before` and `after` are WebP, `changed` a PNG that is laid over them, `motion` an animated WebP of both
    beside one another, empty where nothing moves. `share` of the pixels differ by more
    than `masks.THRESHOLD`.
    """

    why: str
    item: Verdict
    before: bytes = b""
    after: bytes = b""
    changed: bytes = b""
    share: float = 0.0
    motion: bytes = b""
    size: tuple[int, int] = (0, 0)
    trouble: str = ""


def exhibits(chosen: Iterable[tuple[str, Verdict]]) -> Iterator[Exhibit]:
    """The pictures of each. Where the store does not answer for one, the rest are not asked for."""
    silent = ""
    for why, item in chosen:
        bare = Exhibit(why, item)
        try:
            yield replace(bare, trouble=silent) if silent else _exhibit(bare)
        except UnavailableError as error:
            silent = str(error)
            yield replace(bare, trouble=silent)
        except (StorageError, MediumError, KeyError, ValueError, OSError) as error:
            yield replace(bare, trouble=str(error))


def _exhibit(bare: Exhibit) -> Exhibit:
    item = bare.item
    if item.kind == "table":
        raise MediumError("pictures in a table are not shown")
    before, after = (_first_frames(uri) for uri in (item.source_uri, item.output_uri))
    pairs = [(one, other) for (one, _), (other, _) in zip(before, after, strict=False)]
    if not pairs:
        raise MediumError("it holds no picture")
    masks = [mask_from_pair(one, other) for one, other in pairs]
    shown = max(range(len(masks)), key=lambda number: int(masks[number].sum()))
    one, other = pairs[shown]
    return replace(
        bare,
        before=_webp(one),
        after=_webp(other),
        changed=_overlay(masks[shown]),
        share=float(masks[shown].mean()),
        motion=_motion(before, after),
        size=_small(one, SIDE).size,
    )


def _first_frames(uri: str) -> Frames:
    """The frames of the first piece of an object: a picture, a page, or what is shown of footage first."""
    if not uri:
        raise StorageError("the manifest does not say where it lies")
    size, named = storage.size_of(uri), medium_of(uri)
    endings = named.remote if named else frozenset()
    if size > MOST_BYTES and not remote.stays(uri, size, endings):
        raise StorageError(f"{uri}: {size >> 20} MiB are too many to fetch for a picture")
    with remote.at_hand(uri, size, endings) as file:
        kind = named if isinstance(file, Remote) else medium_in(file)
        assert kind is not None
        piece = next(kind.read(cast(Path, file), None), None)
    if piece is None:
        return []
    pixels = [eight_bit(piece.window.pixels[place]) for place in piece.window.own]
    return list(zip(pixels, piece.seconds, strict=False))


def _small(pixels: NDArray[np.uint8], side: int) -> Image.Image:
    """A picture of which no side is longer."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    return picture


def _webp(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    _small(pixels, SIDE).save(stream, "WEBP", quality=QUALITY)
    return stream.getvalue()


def _overlay(mask: NDArray[np.bool_]) -> bytes:
    """PNG: COLOUR where a mask is set, nothing elsewhere. Thin lines stay visible when it gets small."""
    small = Image.fromarray(mask.astype(np.uint8) * 255)
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    cover = np.minimum(np.asarray(small).astype(np.uint16) * 2, 200) // 20 * 20
    pixels = np.dstack([np.full((*cover.shape, 3), COLOUR, np.uint8), cover.astype(np.uint8)])
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _motion(before: Frames, after: Frames) -> bytes:
    """Both beside one another in one picture, so that they keep time."""
    until = before[0][1] + MOTION_SECONDS
    places = [k for k in range(min(len(before), len(after))) if before[k][1] < until]
    if len(places) < 2 or before[places[-1]][1] <= before[0][1]:
        return b""
    length = before[places[-1]][1] - before[0][1]
    places = places[:: -(-len(places) // MOTION_FRAMES)]
    pictures = [_beside(before[k][0], after[k][0]) for k in places]
    stream = io.BytesIO()
    each = max(20, round(1000 * length / len(pictures)))
    pictures[0].save(
        stream, "WEBP", save_all=True, append_images=pictures[1:], duration=each, loop=0, quality=60
    )
    return stream.getvalue()


def _beside(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Image.Image:
    left, right = _small(one, MOTION_SIDE), _small(other, MOTION_SIDE)
    whole = Image.new("RGB", (left.width + right.width + 4, left.height), "white")
    whole.paste(left, (0, 0))
    whole.paste(right, (left.width + 4, 0))
    return whole
