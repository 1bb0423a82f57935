"""The compression of tar archives: told by their first bytes, undone within limits, and done again."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from pipelines.media.packings.packing import CHUNK, Limits, PackingError, damage_as

XZ_MEMORY = 256 << 20
"""Bytes that undoing xz may take; a file can ask for gigabytes."""
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


@dataclass(frozen=True)
class Compression:
    """Files that begin with one of the marks."""

    marks: tuple[bytes, ...]
    opened: Callable[[IO[bytes]], Any]
    """A compressed file -> a stream of what is in it."""
    written: Callable[[IO[bytes]], Any]
    """The file to write -> what compresses into it until it is closed; the same bytes each time."""


class _Unxz(io.RawIOBase):
    """As lzma.open, with a bound on memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.inner = file, self._fresh()
        self.begun = False

    def _fresh(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            coming = b""
            if self.inner.eof:
                coming = (self.inner.unused_data or self.file.read(CHUNK)).lstrip(b"\0")
                self.inner, self.begun = self._fresh(), False
            elif self.inner.needs_input:
                coming = self.file.read(CHUNK)
            if not coming and self.inner.needs_input:
                if self.begun:
                    raise EOFError("it ends too early")
                return 0
            self.begun = True
            data = self.inner.decompress(coming, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)


GZIP = Compression(
    (b"\x1f\x8b",),
    lambda file: gzip.GzipFile(fileobj=file),
    # Without a name and a time, which would differ each time.
    lambda file: gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0),
)
BZIP2 = Compression((b"BZh",), bz2.BZ2File, lambda file: bz2.BZ2File(file, "wb"))
XZ = Compression(
    (b"\xfd7zXZ\0",),
    lambda file: io.BufferedReader(_Unxz(file), CHUNK),
    lambda file: lzma.LZMAFile(file, "wb"),  # noqa: SIM115 (whoever writes closes it)
)
ZSTANDARD = Compression(
    (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + k]) + b"\x2a\x4d\x18" for k in range(16))),
    lambda file: zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True),
    lambda file: zstandard.ZstdCompressor(write_checksum=True).stream_writer(file, closefd=False),
)
COMPRESSIONS = (GZIP, BZIP2, XZ, ZSTANDARD)


def compression_of(path: Path) -> Compression | None:
    """By the file's first bytes; None where it has none."""
    with path.open("rb") as file:
        start = file.read(8)
    return next((one for one in COMPRESSIONS if start.startswith(one.marks)), None)


class Metered:
    """What is in a file, read within limits. Raises PackingError: over one of them, damaged."""

    def __init__(self, stream: Any, packed: int, limits: Limits) -> None:
        self.stream, self.packed, self.limits, self.count = stream, packed, limits, 0

    def read(self, size: int) -> bytes:
        """As many bytes as there are, up to the size."""
        parts, left = [], size
        while left and (data := self._some(left)):
            parts.append(data)
            left -= len(data)
        self.count += size - left
        self.limits.check(self.packed, self.count)
        return b"".join(parts)

    def _some(self, size: int) -> bytes:
        with damage_as(PackingError, *DAMAGE, words="damaged or cut short"):
            return bytes(self.stream.read(size))


@contextmanager
def opened(path: Path, limits: Limits) -> Iterator[Metered]:
    """What is in a file, whether it is compressed or not."""
    found = compression_of(path)
    with path.open("rb") as file:
        stream = file if found is None else found.opened(file)
        yield Metered(stream, path.stat().st_size, limits)


class Counted:
    """What is written to a stream, and how much it was."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.count = stream, 0

    def write(self, data: bytes) -> None:
        """All of it."""
        self.stream.write(data)
        self.count += len(data)


@contextmanager
def written(path: Path, like: Path) -> Iterator[Counted]:
    """A file to write, compressed as another is."""
    found = compression_of(like)
    with path.open("wb") as file:
        if found is None:
            yield Counted(file)
            return
        with found.written(file) as stream:
            yield Counted(stream)
