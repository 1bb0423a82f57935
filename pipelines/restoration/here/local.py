"""One file after another, here: the same pixels and files as a restoration's, without cluster and manifest.

    read -> Net_L -> Net_R -> write -> join

The parts of a file wait on disk until all are there, so memory holds one piece, whatever the file's length.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import torch
from av.error import FFmpegError
from numpy.typing import NDArray

from pipelines.media import MediumError, Piece, medium_in, medium_of
from pipelines.restoration.manifest import FAILED, PASSED, REJECTED, RESTORED
from pipelines.restoration.settings import Settings
from pipelines.services import faults, models, storage
from pipelines.services.storage import StorageError
from spair_core import images, inference, memory
from spair_core.footage import Reach
from spair_core.images import Picture
from spair_core.inference import Restored, chosen, type_of
from spair_core.network import lowered
from spair_core.panels import before_after

Device = Literal["auto", "cpu", "cuda"]
COMPARED = ("picture", "clip")
"""The kinds of which before and after can be put side by side."""
Told = Callable[[int, float], None]
"""Is told after each piece how many frames of the file are done, and the time of the last, in seconds."""


@dataclass(frozen=True)
class Outcome:
    """What became of a file: a verdict as in a manifest, its reason (where it was rejected or failed), and
    notes on what was damaged or missing and what could not be kept."""

    verdict: str
    reason: str = ""
    notes: tuple[str, ...] = ()
    frames: int = 0
    degraded_share: float = 0.0
    """Of all pixels of all frames."""
    compared: bool = False
    """Whether a comparison was written."""


@dataclass(frozen=True)
class Targets:
    """Where what comes of a file goes: locations, written whole or not at all."""

    restored: str
    comparison: str | None = None
    """Before and after, side by side, of single pictures and of clips; of others there is none."""


class FailedError(RuntimeError):
    """A file could not be restored this time; the message says why."""


class Local:
    """A model in this process, which restores one file a call."""

    def __init__(self, settings: Settings, device: Device = "auto") -> None:
        """Load the model. Raises ModelError, StorageError, TrackingError; ValueError where there is no such
        device."""
        self.settings = settings
        where = _device(device)
        resolved = models.resolve(settings.model)
        if where.type == "cpu":
            memory.keep_freed()
        precision = chosen(settings.precision, where)
        self.model = lowered(resolved.build().to(where), type_of(precision))

    def restore(self, source: Path, targets: Targets, told: Told = lambda frames, seconds: None) -> Outcome:
        """Restore a local file of any kind that there is, or copy it where nothing was found.

        What is wrong with it, or with where it goes, is in the outcome. Raises KeyError where its name is
        that of nothing that can be restored.
        """
        if medium_of(source.name) is None:
            raise KeyError(source.suffix)
        if storage.is_no_file(str(source)):
            return Outcome(FAILED, storage.NO_FILE)
        try:
            with tempfile.TemporaryDirectory() as folder:
                return _File(self, source, targets, Path(folder)).restored(told)
        except MediumError as error:
            return Outcome(REJECTED, str(error))
        except (FailedError, StorageError, OSError, MemoryError) as error:
            return Outcome(FAILED, str(error) or type(error).__name__)
        except Exception as error:  # noqa: BLE001 (it is this file's alone)
            return Outcome(FAILED, faults.unforeseen(error))

    def frames(self, piece: Piece) -> Restored:
        """The restored frames of a piece. Raises FailedError."""
        with _failing("the model could not restore it"):
            return inference.restore_window(
                self.model, piece.window, tile=self.settings.tile, min_degraded=self.settings.min_degraded
            )


def seconds_of(path: Path) -> float | None:
    """How long a clip lasts, by its header; None where it does not say so, and of other kinds."""
    kind = medium_of(path.name)
    if kind is None or kind.name != "clip" or storage.is_no_file(str(path)):
        return None
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            return container.duration / av.time_base if container.duration else None
    except (FFmpegError, ValueError):
        return None


def _device(device: Device) -> torch.device:
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ValueError("torch sees no GPU here; leave --device cuda out, or install torch for your GPU")
    return torch.device("cuda" if there and device != "cpu" else "cpu")


@contextmanager
def _failing(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        raise FailedError(f"{what}: {error}") from error


class _File:
    """The work on one file."""

    def __init__(self, local: Local, source: Path, targets: Targets, folder: Path) -> None:
        self.local, self.source, self.targets, self.folder = local, source, targets, folder
        self.kind = medium_in(source)
        self.parts, self.compared = _Parts(folder / "parts"), _Parts(folder / "compared")
        self.comparing = targets.comparison is not None and self.kind.name in COMPARED
        self.notes: dict[str, None] = {}  # each sentence once, in order
        if targets.comparison is not None and not self.comparing:
            self.notes["no comparison was written: there is one of single pictures and of clips"] = None
        self.lost: dict[str, None] = {}
        self.frames, self.degraded = 0, 0.0

    def restored(self, told: Told) -> Outcome:
        """Read, restore and write it."""
        for piece in self.kind.read(self.source, Reach(), self.local.settings.encoding):
            self._take(piece, self.local.frames(piece))
            told(self.frames, piece.seconds[-1])
        if not self.frames:
            self.notes["it holds no pictures or clips"] = None
        written = bool(self.degraded or (self.frames and self.kind.grows))
        if written:
            self.lost |= dict.fromkeys(self._join(self.parts, self.targets.restored))
        else:
            storage.upload(self.source, self.targets.restored)
        if self.comparing and self.frames:
            self._compare(lambda: self._join(self.compared, self.targets.comparison or ""))
        notes = (*self.notes, *(self.lost if written else ()))
        share = self.degraded / max(self.frames, 1)
        verdict = RESTORED if written else PASSED
        return Outcome(verdict, "", notes, self.frames, share, self.comparing)

    def _take(self, piece: Piece, restored: Restored) -> None:
        self.notes |= dict.fromkeys(piece.notes)
        self.lost |= dict.fromkeys(piece.lost)
        found = float(restored.mask.mean(axis=(1, 2)).sum())
        self.frames, self.degraded = self.frames + len(restored.pixels), self.degraded + found
        encoding = self.local.settings.encoding
        with _failing("could not be written"):
            needed = found or self.kind.join is not None
            self.parts.add(self.kind.write(piece.state, restored.pixels, encoding) if needed else b"")
        if self.comparing:
            self._compare(lambda: self.compared.add(self._beside(piece, restored)))

    def _compare(self, step: Callable[[], object]) -> None:
        """What goes wrong with a comparison (twice the width may be too much) is a note."""
        try:
            step()
        except (OSError, ValueError, RuntimeError) as error:
            self.comparing = False
            self.notes[f"no comparison was written: {error}"] = None

    def _beside(self, piece: Piece, restored: Restored) -> bytes:
        """The part of the comparison: frames of twice the width, with captions above."""
        own = piece.window.pixels[piece.window.own.start : piece.window.own.stop]
        pixels = np.stack([self._pair(*pair) for pair in zip(own, restored.pixels, strict=True)])
        if self.kind.join is not None:
            return self.kind.write(piece.state, pixels, self.local.settings.encoding)
        return _picture(piece.state, pixels[0], Path(self.targets.comparison or "").suffix)

    def _pair(self, before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.uint8]:
        """Side by side."""
        before, after = images.eight_bit(before), images.eight_bit(after)
        return before_after(before, after, max_width=2 * before.shape[1])

    def _join(self, parts: _Parts, target: str) -> Sequence[str]:
        """Put the parts together and write that; what could not be kept."""
        lost: Sequence[str] = ()
        written = self.folder / f"written{self.kind.ending(self.source.name)}"
        with _failing("could not be joined"):
            if self.kind.join is not None:
                lost = self.kind.join(iter(parts), self.source, written)
            else:
                written.write_bytes(next(iter(parts)))
        storage.upload(written, target)
        written.unlink()
        return lost


@dataclass
class _Parts:
    """What was written of a file, on disk until all is there."""

    path: Path
    lengths: list[int] = field(default_factory=list)

    def add(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            self.lengths.append(file.write(data))

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            for length in self.lengths:
                yield file.read(length)


def _picture(state: Picture, pixels: NDArray[Any], suffix: str) -> bytes:
    """A comparison in a format that everything shows, in the colours of the source's profile."""
    format = "PNG" if suffix.lower() == ".png" else "JPEG"
    profile = state.icc_profile if state.mode == "RGB" else None
    return images.encode(Picture(pixels, format, icc_profile=profile), quality=90)
