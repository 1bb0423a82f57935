"""What a kind of medium is to all that restores it and looks at it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.media.video import EncodeConfig
from spair_core.footage import Reach, Window


class MediumError(ValueError):
    """These bytes are not what their name says, or cannot be restored; the message says why."""


@dataclass(frozen=True)
class Encoding:
    """How what was restored is written: `quality` (1 to 100) of lossy pictures, None for that of the source
    where it can be told, and that of clips."""

    quality: int | None = None
    clips: EncodeConfig = field(default_factory=EncodeConfig)


@dataclass(frozen=True)
class Piece:
    """A piece of work: frames to restore, and the `state` that writing them takes beside their pixels.

    `seconds` are the times of the window's own frames; a picture's is 0.
    """

    window: Window
    state: Any
    seconds: tuple[float, ...] = (0.0,)
    notes: tuple[str, ...] = ()
    """What of the item is damaged or missing, a sentence each for the manifest, in any of its pieces."""
    lost: tuple[str, ...] = ()
    """What of it cannot be kept when it is written, likewise."""


class Read(Protocol):
    """A local file -> its pieces in order, each with the frames around it that the reach asks for.

    Where it is to be written again, `encoding` says how; a clip that cannot be so is
    told before its first piece.
    """

    def __call__(
        self, path: Path, reach: Reach | None, encoding: Encoding | None = None, /
    ) -> Iterator[Piece]: ...


@dataclass(frozen=True)
class Medium:
    """One kind of thing that a bucket holds. A module of this room has one, `catalogue.MEDIA` all.

    All raise MediumError where the bytes, or the container that they must go into, are not up to it.
    """

    name: str
    """The kind in manifests."""
    suffixes: frozenset[str]
    """Endings of names, in lower case with their dot; what is restored keeps its name."""
    read: Read
    write: Callable[[Any, NDArray[Any], Encoding], bytes]
    """A piece's state and its restored frames [k, H, W, 3], of the type that was read (uint8, or uint16 of
    16 bit) -> that part of the result."""
    join: Callable[[Iterable[bytes], Path, Path], Sequence[str]] | None = None
    """Parts in order, the source and the file to write -> what could not be kept, a sentence each; None where
    what is read is one piece, whose part is the file."""
    holds: Callable[[Path], bool] | None = None
    """Whether a file of such a name is of this kind, by what is in it, where endings belong to several kinds;
    None for the kind of all others."""
    collection: bool = False
    """Whether it is no picture and no clip itself, but a file that holds some among other things."""
    grows: bool = False
    """Whether what is written has more than the source, and so is written where nothing was found too."""
    remote: frozenset[str] = frozenset()
    """Those of its endings whose files need not lie on this machine: `read` and `join` take such as
    `video.RemoteFile` is."""

    def ending(self, name: str) -> str:
        """The longest of its endings that a name has, as it stands there; empty where it has none."""
        found = (suffix for suffix in self.suffixes if name.lower().endswith(suffix))
        length = max(map(len, found), default=0)
        return name[len(name) - length :]


@contextmanager
def telling(*errors: type[Exception]) -> Iterator[None]:
    """Turn these errors into a MediumError that says the same."""
    try:
        yield
    except errors as error:
        raise MediumError(str(error)) from error


NO_PIECE: Mapping[str, Any] = {"pixels": b"", "shape": [0], "around": b"", "notes": "", "lost": ""}
"""Those columns in a row that says why there is no piece."""


def packed(piece: Piece) -> dict[str, Any]:
    """A piece as columns of a row."""
    window = piece.window
    around = replace(window, pixels=window.pixels[:0]), piece.state
    return {
        "pixels": window.pixels.tobytes(),
        "shape": list(window.pixels.shape),
        "around": pickle.dumps(around),
        "notes": "\n".join(piece.notes),
        "lost": "\n".join(piece.lost),
    }


def unpacked(row: dict[str, Any]) -> Piece:
    """The piece of such a row."""
    around, state = pickle.loads(row["around"])
    pixels = np.frombuffer(row["pixels"], around.pixels.dtype).reshape([int(side) for side in row["shape"]])
    notes, lost = (tuple(row[name].splitlines()) for name in ("notes", "lost"))
    return Piece(replace(around, pixels=pixels), state, notes=notes, lost=lost)
