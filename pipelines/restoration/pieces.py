"""An item into pieces of work and back: read and decode before the model, encode, write and join after it.

Nothing here needs torch, so that the processes that do this start soon.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import ray

from pipelines.media import (
    NO_PIECE,
    Encoding,
    MediumError,
    Piece,
    medium,
    medium_in,
    medium_of,
    packed,
    unpacked,
)
from pipelines.restoration import manifest
from pipelines.restoration.manifest import FAILED, PASSED, REJECTED, RESTORED
from pipelines.services import locations, remote, storage
from pipelines.services.quarantine import GivenUpError, Quarantine, QuarantinedError, unforeseen
from pipelines.services.remote import Remote
from pipelines.services.storage import StorageError
from spair_core.footage import Reach

if TYPE_CHECKING:
    from spair_core.inference import Chosen

GIVEN_UP, UNCHANGED, UNUSABLE = "given up", "unchanged", "unusable model"
"""What a row says in a verdict's place: of work that was not begun when the run was to stop, of an item whose
bytes are those that were settled before, and of work that nobody could do with this model."""


@dataclass(frozen=True)
class Work:
    """What the work on a window takes beside its items."""

    destination: str
    model: bytes
    precision: Chosen
    tile: int
    min_degraded: float
    encoding: Encoding
    actors: int | Literal["auto"]
    num_gpus: float
    piece_seconds: float

    @property
    def staging(self) -> str:
        """Where the parts of items wait to be joined."""
        return locations.join(self.destination, manifest.FOLDER, "staging")


def decode(item: dict[str, Any], encoding: Encoding, quarantine: Quarantine) -> Iterator[dict[str, Any]]:
    """An item's pieces of work, or one that says why there are none (or no more)."""
    base = {**item, "part": 0, "last": True, "error": "", "verdict": RESTORED, "digest": ""}
    base |= NO_PIECE
    part = 0
    pieces = _pieces(item, encoding, base)
    try:
        last = False
        while not last:
            with quarantine.hold(f"decode {item['key']} {part}"):
                piece = next(pieces)
            last = piece["last"]
            yield {**piece, "part": part}
            part += 1
    except GivenUpError:
        return
    except MediumError as error:
        yield {**base, "part": part, "error": str(error), "verdict": REJECTED}
    except (QuarantinedError, StorageError, OSError, MemoryError) as error:
        yield {**base, "part": part, "error": str(error), "verdict": FAILED}
    except Exception as error:  # noqa: BLE001 (it is this item's alone)
        yield {**base, "part": part, "error": unforeseen(error), "verdict": FAILED}
    finally:
        pieces.close()


def _pieces(
    item: dict[str, Any], encoding: Encoding, base: dict[str, Any]
) -> Generator[dict[str, Any], None, None]:
    """The rows of an item; the last is known as such when there is none after it."""
    with _at_hand(item["uri"], item["size"]) as source:
        digest = source.digest() if isinstance(source, Remote) else _digest(source)
        base = {**base, "digest": digest}
        if item["known_digest"] == digest:
            yield {**base, **NO_PIECE, "error": "its bytes were settled before", "verdict": UNCHANGED}
            return
        held: dict[str, Any] | None = None
        kind = medium_of(item["uri"]) if isinstance(source, Remote) else medium_in(source)
        assert kind is not None
        for piece in kind.read(cast(Path, source), Reach(), encoding):
            if held is not None:
                yield {**held, "last": False}
            held = {**base, **packed(piece), "kind": kind.name}
        nothing = {**NO_PIECE, "kind": kind.name, "verdict": PASSED, "notes": "it holds no pictures or clips"}
        yield held or {**base, **nothing}


def _at_hand(uri: str, size: int) -> AbstractContextManager[Path | Remote]:
    """An item's file, as its kind takes it."""
    kind = medium_of(uri)
    return remote.at_hand(uri, size, kind.remote if kind else frozenset())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encode(row: dict[str, Any], work: Work, quarantine: Quarantine) -> dict[str, Any]:
    """Write what a piece of work gave; what is left is small and goes to the ledger.

    A whole item in which nothing was found is copied; of one in parts the ledger knows when all are there.
    """
    slim = {k: row[k] for k in ("key", "kind", "part", "last", "error", "verdict", "digest")}
    slim |= {k: row[k] for k in ("notes", "lost")}
    slim |= {k: row[k] for k in ("model_seconds", "degraded_share", "panel_png")}
    slim |= {"height": 0, "width": 0, "frames": 0, "output_digest": ""}
    if row["error"]:
        return slim
    piece = None if row["verdict"] == PASSED else unpacked(row)
    if piece is not None:
        slim |= dict(zip(("frames", "height", "width"), piece.window.pixels.shape, strict=False))
    try:
        with quarantine.hold(f"encode {row['key']} {row['part']}", to_the_end=True):
            if piece is None or (medium(row["kind"]).join is None and row["degraded_share"] == 0):
                storage.copy(row["uri"], locations.join(work.destination, row["key"]))
                return {**slim, "output_digest": row["digest"], "verdict": PASSED}
            return {**slim, "output_digest": _written(row, piece, work)}
    except (QuarantinedError, StorageError, OSError, ValueError) as error:
        return {**slim, "error": f"could not be written: {error}", "verdict": FAILED}
    except Exception as error:  # noqa: BLE001
        return {**slim, "error": f"could not be written: {unforeseen(error)}", "verdict": FAILED}


def _written(row: dict[str, Any], piece: Piece, work: Work) -> str:
    """Write the item, or a part of it that is yet to be joined; the digest of what was written."""
    kind = medium(row["kind"])
    data = kind.write(piece.state, piece.window.pixels, work.encoding)
    whole = locations.join(work.destination, row["key"])
    storage.write_bytes(_part(work, row["key"], int(row["part"])) if kind.join else whole, data)
    return hashlib.sha256(data).hexdigest()


def _part(work: Work, key: str, part: int) -> str:
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    return locations.join(work.staging, name, f"{part:06d}")


@ray.remote(num_cpus=0.5, max_retries=2)
def join(work: Work, item: dict[str, Any], parts: int, passed: bool) -> tuple[str, str, str]:
    """Join an item's parts and write it, or copy it where it passed; its digest, or why that failed, and what
    could not be kept."""
    try:
        if passed:
            storage.copy(item["uri"], locations.join(work.destination, item["key"]))
            return "", "", ""
        names = [_part(work, item["key"], part) for part in range(parts)]
        digest, notes = _joined(work, item, lambda: map(storage.read_bytes, names))
        return digest, "", "\n".join(notes)
    except (MediumError, StorageError, OSError) as error:
        return "", f"could not be joined: {error}", ""
    except Exception as error:  # noqa: BLE001
        return "", f"could not be joined: {unforeseen(error)}", ""


def _joined(
    work: Work, item: dict[str, Any], data: Callable[[], Iterator[bytes]]
) -> tuple[str, Sequence[str]]:
    """Write an item of its parts; its digest, and what could not be kept."""
    join, whole = medium(item["kind"]).join, locations.join(work.destination, item["key"])
    assert join is not None
    with tempfile.TemporaryDirectory() as folder, _at_hand(item["uri"], item["size"]) as source:
        if isinstance(source, Remote) and remote.writable(whole):
            notes = remote.written(whole, lambda target: join(data(), cast(Path, source), cast(Path, target)))
            return Remote(whole).digest(), notes
        path = Path(folder) / f"restored{source.suffix}"
        notes = join(data(), cast(Path, source), path)
        storage.upload(path, whole)
        return _digest(path), notes
