"""How many cores beside a GPU bring it the frames of a clip and write what it gives.

Reading is decoding, with the frames around each run that references look at, and packing runs into rows;
writing is encoding what is restored and joining the runs. Both are counted in CPU seconds of all their
threads, without the network between them and without a store.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.media import Encoding, MediumError, medium_in, packed, unpacked
from spair_core.footage import Reach


@dataclass(frozen=True)
class CodingConfig:
    """What is read and written, and how fast."""

    clip: str
    """A local clip."""
    rate: float = 60.0
    """Frames a second that the GPU restores."""
    json: str | None = None
    """Write the rows here as well."""


def seconds_a_frame(clip: Path) -> tuple[float, float]:
    """CPU seconds to read a frame of it, and to write one. Raises MediumError where it is no clip."""
    kind, parts, frames = medium_in(clip), [], 0
    if kind.join is None:
        raise MediumError(f"{clip}: is no clip")
    reading, writing = [0.0], [0.0]
    pieces = kind.read(clip, Reach())
    while True:
        with _counted(reading):
            piece = next(pieces, None)
            row = packed(piece) if piece else None
        if row is None:
            break
        with _counted(writing):
            piece = unpacked(row)
            own = piece.window.pixels[piece.window.own.start : piece.window.own.stop]
            parts.append(kind.write(piece.state, own, Encoding()))
        frames += len(own)
    with tempfile.TemporaryDirectory() as folder, _counted(writing):
        kind.join(iter(parts), clip, Path(folder) / clip.name)
    return reading[0] / frames, writing[0] / frames


@contextmanager
def _counted(total: list[float]) -> Iterator[None]:
    began = time.process_time()
    yield
    total[0] += time.process_time() - began


def measure(config: CodingConfig) -> list[dict[str, Any]]:
    """The rows."""
    read, write = seconds_a_frame(Path(config.clip))
    cores = config.rate * (read + write)
    return [
        {"what": "reading a frame", "figure": 1000 * read, "unit": "CPU ms", "ratio": None},
        {"what": "writing a frame", "figure": 1000 * write, "unit": "CPU ms", "ratio": None},
        {"what": f"cores for {config.rate:g} frames/s", "figure": cores, "unit": "cores", "ratio": None},
    ]
