"""Zip archives: every record is copied as it stands, but for those of members that were restored.

So members that are encrypted or compressed in ways unknown stay what they were, and so do names in any
encoding, comments and extra fields.
"""

from __future__ import annotations

import lzma
import os
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from pipelines.media.packings.packing import (
    Guard,
    Limits,
    Member,
    MemberError,
    PackingError,
    copy,
    damage_as,
    shown,
)

LOCAL = struct.Struct("<4s5H3L2H")
"""mark, version, flags, method, time, date, checksum, packed, unpacked, lengths of name and extra."""
CENTRAL = struct.Struct("<4s6H3L5H2L")
"""The same with the writer's version in front and, at the end, the length of a comment, disk, attributes
(2) and the local record's place."""
END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR = struct.Struct("<4sLQL")
MAX32, MAX16 = 0xFFFFFFFF, 0xFFFF
ENCRYPTED, DESCRIPTOR, UTF8 = 1, 1 << 3, 1 << 11
WIDE, UNICODE_NAME = 0x0001, 0x7075
"""Extra fields: 64-bit sizes, and a name in Unicode."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
LZMA_MEMORY = 256 << 20
MOST_LINK = 4096
MOST_DIRECTORY = 256 << 20
"""Bytes of a directory, which is held in memory."""
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


@dataclass(frozen=True)
class _Entry:
    """A member's line in the directory."""

    fields: tuple[int, ...]
    """Of the fixed part, without its mark."""
    name: bytes
    extra: bytes
    comment: bytes
    info: zipfile.ZipInfo

    @property
    def text(self) -> str:
        """The name; of old ones without an encoding that of our time, if it can be."""
        try:
            return self.name.decode()
        except UnicodeDecodeError:
            return self.name.decode("cp437")

    @property
    def mode(self) -> int:
        return self.info.external_attr >> 16


def walk(path: Path, into: Path | None, limits: Limits) -> Iterator[Member]:
    """The members of an archive in the order in which they lie there, which is written to `into` meanwhile.

    Raises PackingError."""
    with path.open("rb") as file, _opened(path, file) as archive:
        entries = _directory(file, archive)
        spans = _spans(file, entries, archive.start_dir)
        _check(archive, entries, limits, path.stat().st_size)
        with (Path(os.devnull) if into is None else into).open("wb") as out:
            file.seek(0)
            copy(file, out, min((start for start, _ in spans.values()), default=0))
            placed: dict[int, _Entry] = {}
            for number in sorted(spans, key=lambda number: spans[number][0]):
                member = _member(archive, entries[number])
                yield member
                if into is not None:
                    placed[number] = _written(file, out, entries[number], spans[number], member.restored)
            if into is not None:
                _close(out, [placed[number] for number in range(len(entries))], archive.comment)


@contextmanager
def _opened(path: Path, file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    size = path.stat().st_size
    file.seek(max(0, size - END.size - MAX16))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + END.size:
        raise PackingError("no zip archive, or cut short: the directory at its end is missing")
    if MAX32 > int(END.unpack_from(tail, at)[5]) > MOST_DIRECTORY or _wide_size(tail, at) > MOST_DIRECTORY:
        raise PackingError(f"its directory has more than {MOST_DIRECTORY:,} bytes, which is refused")
    try:
        archive = zipfile.ZipFile(path)
    except (*DAMAGE, ValueError, struct.error) as error:
        raise PackingError(f"damaged: {error}") from error
    with archive:
        yield archive


def _wide_size(tail: bytes, at: int) -> int:
    """Of the directory, where the end of an archive that is told to be large says it in 64 bits."""
    if not tail.startswith(b"PK\6\7", max(0, at - LOCATOR.size)):
        return 0
    return (
        int(END64.unpack_from(tail, at - LOCATOR.size - END64.size)[8])
        if at >= LOCATOR.size + END64.size
        else 0
    )


def _directory(file: IO[bytes], archive: zipfile.ZipFile) -> list[_Entry]:
    """The lines as they stand, in their order."""
    file.seek(archive.start_dir)
    entries = []
    for info in archive.infolist():
        _, *fields = CENTRAL.unpack(file.read(CENTRAL.size))
        name, extra, comment = (file.read(length) for length in fields[9:12])
        entries.append(_Entry(tuple(fields), name, extra, comment, info))
    return entries


def _spans(file: IO[bytes], entries: list[_Entry], end: int) -> dict[int, tuple[int, int]]:
    """Where the record of each member begins and ends, with all that follows it. Raises PackingError."""
    order = sorted(range(len(entries)), key=lambda number: entries[number].info.header_offset)
    starts = [entries[number].info.header_offset for number in order]
    spans = {}
    for number, start, stop in zip(order, starts, [*starts, end][1:], strict=True):
        entry = entries[number]
        file.seek(max(start, 0))
        head = file.read(LOCAL.size)
        if start < 0 or len(head) < LOCAL.size or not head.startswith(b"PK\3\4"):
            raise PackingError(f"damaged: {shown(entry.text)} is not where the directory says")
        *_, named, extra = LOCAL.unpack(head)
        if start + LOCAL.size + named + extra + entry.info.compress_size > stop:
            raise PackingError(f"{shown(entry.text)} is refused: it overlaps another member, as in a bomb")
        if file.read(named) != entry.name:
            raise PackingError(f"{shown(entry.text)} is refused: it has two names")
        spans[number] = (start, stop)
    return spans


def _check(archive: zipfile.ZipFile, entries: list[_Entry], limits: Limits, packed: int) -> None:
    guard = Guard()
    limits.check(packed, sum(entry.info.file_size for entry in entries))
    for number, entry in enumerate(entries):
        limits.check_member(number, entry.text, entry.info.file_size)
        if stat.S_IFMT(entry.mode) in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK):
            raise PackingError(f"{shown(entry.text)} is refused: it is a device")
        guard.admit(_names(entry), _link(archive, entry) if stat.S_ISLNK(entry.mode) else "")


def _names(entry: _Entry) -> list[str]:
    """All that a member may be called, by whoever reads it."""
    fields = dict(_extra_fields(entry.extra))
    told = [fields[UNICODE_NAME][5:].decode("utf-8", "replace")] if UNICODE_NAME in fields else []
    return [entry.name.decode("cp437"), entry.info.orig_filename, entry.text, *told]


def _link(archive: zipfile.ZipFile, entry: _Entry) -> str:
    try:
        if entry.info.file_size > MOST_LINK:
            raise PackingError(
                f"{shown(entry.text)} is refused: it is a link of {entry.info.file_size:,} bytes"
            )
        return archive.read(entry.info).decode("utf-8", "surrogateescape")
    except (*DAMAGE, OSError) as error:
        raise PackingError(f"{shown(entry.text)} is refused: a link that cannot be read: {error}") from error


def _member(archive: zipfile.ZipFile, entry: _Entry) -> Member:
    def spool_to(path: Path) -> None:
        _check_readable(archive, entry.info)
        with (
            damage_as(MemberError, *DAMAGE),
            archive.open(entry.info) as content,
            path.open("wb") as file,
        ):
            copy(content, file)

    bare = entry.text.endswith(("/", "\\")) or stat.S_IFMT(entry.mode) not in (0, stat.S_IFREG)
    return Member(shown(entry.text), None if bare else spool_to)


def _check_readable(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & ENCRYPTED:
        raise MemberError("it is encrypted")
    if info.compress_type not in METHODS:
        raise MemberError(f"it is compressed by method {info.compress_type}, which is not known")
    if info.compress_type == zipfile.ZIP_LZMA and _lzma_memory(archive, info) > LZMA_MEMORY:
        raise MemberError(f"reading it takes more than {LZMA_MEMORY:,} bytes of memory")


def _lzma_memory(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    assert archive.filename is not None
    with open(archive.filename, "rb") as file:
        file.seek(info.header_offset)
        *_, named, extra = LOCAL.unpack(file.read(LOCAL.size))
        file.seek(named + extra + 5, os.SEEK_CUR)
        return int.from_bytes(file.read(4), "little")


def _written(
    file: IO[bytes], out: IO[bytes], entry: _Entry, span: tuple[int, int], restored: Path | None
) -> _Entry:
    """Write a member; its line in the new directory."""
    place = out.tell()
    if restored is None:
        file.seek(span[0])
        copy(file, out, span[1] - span[0])
        return _line(entry, place, entry.info.file_size, entry.info.compress_size)
    with tempfile.TemporaryFile() as scratch:
        packed = _packed(restored, entry.info.compress_type, scratch)
        file.seek(span[0])
        out.write(_local(file, packed))
        copy(scratch, out, packed.compress_size)
    fields = list(entry.fields)
    fields[2] &= ~DESCRIPTOR
    fields[6] = packed.CRC
    return _line(replace(entry, fields=tuple(fields)), place, packed.file_size, packed.compress_size)


def _packed(path: Path, method: int, scratch: IO[bytes]) -> zipfile.ZipInfo:
    """Compress a file; its bytes are what the scratch file then gives."""
    info = zipfile.ZipInfo("0")
    info.compress_type = method
    with (
        zipfile.ZipFile(scratch, "w") as archive,
        path.open("rb") as file,
        archive.open(info, "w", force_zip64=True) as content,
    ):
        copy(file, content)
    scratch.seek(0)
    *_, named, extra = LOCAL.unpack(scratch.read(LOCAL.size))
    scratch.seek(named + extra, os.SEEK_CUR)
    return info


def _local(file: IO[bytes], packed: zipfile.ZipInfo) -> bytes:
    """The head of the record that a file is at, for other content."""
    mark, version, flags, method, time, date, *_, named, extra = LOCAL.unpack(file.read(LOCAL.size))
    name, fields = file.read(named), _without_wide(file.read(extra))
    sizes = [packed.compress_size, packed.file_size]
    if max(sizes) >= MAX32:
        fields += struct.pack("<2H2Q", WIDE, 16, packed.file_size, packed.compress_size)
        version, sizes = max(version, zipfile.ZIP64_VERSION), [MAX32, MAX32]
    head = (mark, version, flags & ~DESCRIPTOR, method, time, date, packed.CRC, *sizes, named, len(fields))
    return LOCAL.pack(*head) + name + fields


def _line(entry: _Entry, place: int, size: int, packed: int) -> _Entry:
    """The member's line in the directory, with other sizes and place."""
    fields = list(entry.fields)
    wide = [value for value in (size, packed, place) if value >= MAX32]
    extra = _without_wide(entry.extra)
    if wide:
        extra = struct.pack(f"<2H{len(wide)}Q", WIDE, 8 * len(wide), *wide) + extra
        fields[1] = max(fields[1], zipfile.ZIP64_VERSION)
    fields[7:9] = [min(packed, MAX32), min(size, MAX32)]
    fields[10], fields[12], fields[15] = len(extra), 0, min(place, MAX32)
    return replace(entry, fields=tuple(fields), extra=extra)


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        yield kind, extra[at + 4 : at + 4 + length]
        at += 4 + length


def _without_wide(extra: bytes) -> bytes:
    """Without the field of 64-bit sizes; all else, padding included, as it is."""
    kept, at = b"", 0
    for kind, content in _extra_fields(extra):
        stop = at + 4 + len(content)
        kept += b"" if kind == WIDE else extra[at:stop]
        at = stop
    return kept + extra[at:]


def _close(out: IO[bytes], entries: list[_Entry], comment: bytes) -> None:
    """Write the directory and what ends an archive."""
    start = out.tell()
    for entry in entries:
        out.write(CENTRAL.pack(b"PK\1\2", *entry.fields) + entry.name + entry.extra + entry.comment)
    size, count, end = out.tell() - start, len(entries), out.tell()
    if count >= MAX16 or size >= MAX32 or start >= MAX32:
        wide = zipfile.ZIP64_VERSION
        out.write(END64.pack(b"PK\6\6", END64.size - 12, wide, wide, 0, 0, count, count, size, start))
        out.write(LOCATOR.pack(b"PK\6\7", 0, end, 1))
    counts = (min(count, MAX16), min(count, MAX16))
    out.write(END.pack(b"PK\5\6", 0, 0, *counts, min(size, MAX32), min(start, MAX32), len(comment)) + comment)
