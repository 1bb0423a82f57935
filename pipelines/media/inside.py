"""Pieces of what lies inside another medium: each knows whose it is, and so does the part written of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from numpy.typing import NDArray

from pipelines.media.medium import Encoding, Medium, MediumError, Piece

MOST_NOTES = 100
"""Of one item; of more there is the number."""


@dataclass(frozen=True)
class Inside:
    """The state of a piece of what has a place in another medium."""

    owner: int
    last: bool
    """Whether no piece of the same owner follows."""
    kind: str
    state: Any
    digest: bytes
    """Of the pixels that were read: what is written knows by it whether anything changed."""
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """What was written of such a piece."""

    owner: int
    last: bool
    kind: str
    changed: bool
    lost: list[str]
    error: str
    """Why it could not be written."""
    data: bytes = b""
    """Nothing where nothing changed and the kind does not need it."""

    def packed(self) -> bytes:
        """A line of JSON, and the data."""
        told = {key: value for key, value in asdict(self).items() if key != "data"}
        return json.dumps(told).encode() + b"\n" + self.data

    @staticmethod
    def unpacked(data: bytes) -> Part:
        """The part of such bytes."""
        told, _, rest = data.partition(b"\n")
        return Part(**json.loads(told), data=rest)


def pieces(owner: int, kind: Medium, found: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces of an owner; the last is known as such when there is none after it."""
    held: Piece | None = None
    for piece in found:
        if held is not None:
            yield held
        state = Inside(owner, False, kind.name, piece.state, _digest(_own(piece)), piece.lost)
        held = replace(piece, state=state, lost=())
    if held is not None:
        yield replace(held, state=replace(held.state, last=True))


def write(state: Inside, pixels: NDArray[Any], encoding: Encoding, kind: Medium) -> bytes:
    """The part of a piece; one that cannot be written says so, and the others of the item go on."""
    changed = _digest(pixels) != state.digest
    part = Part(state.owner, state.last, state.kind, changed, list(state.lost), "")
    if not changed and kind.join is None:
        return part.packed()
    try:
        return replace(part, data=kind.write(state.state, pixels, encoding)).packed()
    except ValueError as error:
        return replace(part, error=f"could not be written: {error}").packed()


def _own(piece: Piece) -> NDArray[Any]:
    own = piece.window.own
    return piece.window.pixels[own.start : own.stop]


def _digest(pixels: NDArray[Any]) -> bytes:
    return hashlib.sha256(pixels.tobytes()).digest()


class Parts:
    """The parts of an item as they come, for those who walk its source in the same order."""

    def __init__(self, data: Iterable[bytes]) -> None:
        self._coming = map(Part.unpacked, data)
        self._next = next(self._coming, None)
        self.changed = False
        """Whether anything was changed in those that were taken."""

    def of(self, owner: int) -> Iterator[Part]:
        """Those of an owner, none if it has none."""
        while self._next is not None and self._next.owner == owner:
            part, self._next = self._next, next(self._coming, None)
            self.changed = self.changed or part.changed
            yield part

    def check_all_taken(self) -> None:
        """Raises MediumError where parts are left, as of a source that changed meanwhile."""
        if self._next is not None:
            raise MediumError("what was restored does not belong to it: it has changed meanwhile")


def noted(found: Iterable[Piece | str]) -> Iterator[Piece]:
    """The pieces among pieces and sentences, which become notes of the piece before or after."""
    held: Piece | None = None
    waiting: list[str] = []
    count = 0
    for one in found:
        if isinstance(one, str):
            count += 1
            waiting += [one] if count <= MOST_NOTES else []
            continue
        if held is not None:
            yield held
        held, waiting = replace(one, notes=(*waiting, *one.notes)), []
    if held is not None:
        more = [f"and {count - MOST_NOTES} more such notes"] if count > MOST_NOTES else []
        yield replace(held, notes=(*held.notes, *waiting, *more))
