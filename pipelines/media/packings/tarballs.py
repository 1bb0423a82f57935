"""Tar archives: every header is copied as it stands, but for the sizes of members that were restored.

So what a header may hold beside a name (owners, times, attributes, comments, the map of a sparse file, in the
forms of GNU, POSIX or any other) stays as it was without being understood.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.media.packings.packing import (
    CHUNK,
    Guard,
    Limits,
    Member,
    MemberError,
    PackingError,
    copy,
    shown,
)
from pipelines.media.packings.streams import Counted, Metered, opened, written

BLOCK = tarfile.BLOCKSIZE
RECORD = tarfile.RECORDSIZE
"""Tar fills up archives to multiples of it."""
ZEROS = bytes(BLOCK)
MOST_HEADER = 1 << 20
"""Bytes of all the headers of one member."""
LONG_NAME, LONG_LINK, SPARSE = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE
LOCAL, GLOBAL = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE), tarfile.XGLTYPE
BEFORE = (LONG_NAME, LONG_LINK, GLOBAL, *LOCAL)
"""Headers that go before a member's own."""
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
BARE = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)
"""Have no content, whatever size is said."""
DEVICES = (tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)
NAMING = (b"path", b"linkpath", b"size")
MOST_OCTAL = 8**11


@dataclass
class _Entry:
    """A member's headers, as they stand: those that go before its own, and its own."""

    before: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Each a block, and its content with its padding."""
    block: bytes = b""
    map: bytes = b""
    """Further blocks of a sparse file."""
    records: dict[bytes, bytes] = field(default_factory=dict)
    """Of POSIX headers."""
    names: list[str] = field(default_factory=list)
    """All that it is called, the one that counts last; likewise for links."""
    links: list[str] = field(default_factory=list)
    type: bytes = b""
    size: int = 0
    """Of what follows."""

    @property
    def sparse(self) -> bool:
        """Whether what follows is only those parts of a file that are not empty."""
        return self.type == SPARSE or any(key.startswith(b"GNU.sparse") for key in self.records)

    @property
    def file(self) -> bool:
        return self.type in (*FILES, SPARSE) and not self.names[-1].endswith("/")

    def raw(self) -> bytes:
        return b"".join([*(part for pair in self.before for part in pair), self.block, self.map])

    def resized(self, size: int) -> bytes:
        """The headers with another size."""
        before = [_with_size_record(*pair, size) for pair in self.before]
        block = _with_size(self.block, size)
        return b"".join([*(part for pair in before for part in pair), block])


def walk(path: Path, into: Path | None, limits: Limits) -> Iterator[Member]:
    """The members of an archive in order, which is written to `into` meanwhile. Raises PackingError."""
    target = Path(os.devnull) if into is None else into
    with opened(path, limits) as stream, written(target, target if into is None else path) as out:
        guard, ended, number = Guard(), False, 0
        while block := stream.read(BLOCK):
            if block == ZEROS:
                ended = True
                out.write(block)
                continue
            entry = _entry(stream, block, ended)
            if entry is None:
                yield Member("what follows its end mark", None, "is no archive, and stays as it is")
                out.write(block)
                _copy_all(stream, out)
                break
            _admit(entry, guard, limits, number)
            number += 1
            yield from _passed(entry, stream, out)
        if not ended:
            raise PackingError("cut short: its end mark is missing")
        if stream.count % RECORD == 0:
            out.write(bytes(-out.count % RECORD))


def _passed(entry: _Entry, stream: Metered, out: Counted) -> Iterator[Member]:
    """The member of an entry; when it comes back, it is written, restored or as it was."""
    spooled: list[Path] = []

    def spool_to(path: Path) -> None:
        if entry.sparse:
            raise MemberError("sparse files are not read")
        with path.open("wb") as file:
            _copy(stream, file, entry.size)
        spooled.append(path)

    member = Member(shown(entry.names[-1]), spool_to if entry.file else None)
    yield member
    content = member.restored or next(iter(spooled), None)
    size = entry.size if content is None else content.stat().st_size
    out.write(entry.raw() if size == entry.size else entry.resized(size))
    if content is not None:
        with content.open("rb") as file:
            copy(file, out)
    if not spooled:
        _copy(stream, out if content is None else None, entry.size)
    stream.read(-entry.size % BLOCK)
    out.write(bytes(-size % BLOCK))


def _entry(stream: Metered, block: bytes, ended: bool) -> _Entry | None:
    """The headers that begin with a block; None where what follows an end mark are none."""
    if ended and _parsed(block) is None:
        return None
    entry, taken = _Entry(), 0
    while (info := _header(block, stream)).type in BEFORE:
        taken += info.size + BLOCK
        if not 0 <= info.size <= MOST_HEADER or taken > MOST_HEADER:
            raise PackingError(f"a member has more than {MOST_HEADER:,} bytes of headers")
        content = _exactly(stream, info.size + -info.size % BLOCK)
        entry.before.append((block, content))
        _take(entry, info.type, content[: info.size])
        block = _exactly(stream, BLOCK)
    return _completed(entry, info, block, stream)


def _header(block: bytes, stream: Metered) -> tarfile.TarInfo:
    info, at = _parsed(block), stream.count - len(block)
    if info is None:
        raise PackingError(f"damaged or cut short: no header at byte {at:,}" if at else "not a tar archive")
    return info


def _parsed(block: bytes) -> tarfile.TarInfo | None:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None


def _take(entry: _Entry, type: bytes, content: bytes) -> None:
    """What a header that goes before a member's own says of it."""
    if type in (LONG_NAME, LONG_LINK):
        text = _text(content.split(b"\0")[0])
        (entry.names if type == LONG_NAME else entry.links).append(text)
        return
    records = dict(_records(content))
    if type == GLOBAL:
        if any(key in NAMING or key.startswith(b"GNU.sparse") for key in records):
            raise PackingError("refused: a header for all members says what each is called or how large")
        return
    entry.records |= records


def _completed(entry: _Entry, info: tarfile.TarInfo, block: bytes, stream: Metered) -> _Entry:
    entry.block, entry.type = block, info.type
    if info.type == SPARSE:
        entry.map = _sparse_map(stream, block)
    said = entry.records.get(b"size", b"%d" % info.size)
    if not said.isdigit():
        raise PackingError("damaged: a size is no number")
    entry.size = 0 if info.type in BARE else int(said)
    named = [entry.records[key] for key in (b"path", b"GNU.sparse.name") if key in entry.records]
    entry.names = [_own_name(block), *entry.names, *map(_text, named)]
    linked = [entry.records[b"linkpath"]] if b"linkpath" in entry.records else []
    entry.links = [info.linkname, *entry.links, *map(_text, linked)]
    return entry


def _sparse_map(stream: Metered, block: bytes) -> bytes:
    blocks, more = b"", block[482]
    while more:
        blocks += _exactly(stream, BLOCK)
        more = blocks[-BLOCK + 504]
        if len(blocks) > MOST_HEADER:
            raise PackingError(f"a member has more than {MOST_HEADER:,} bytes of headers")
    return blocks


def _own_name(block: bytes) -> str:
    name, prefix = (part.split(b"\0")[0] for part in (block[:100], block[345:500]))
    posix = block[257:263] == b"ustar\0"
    return _text(prefix + b"/" + name if posix and prefix else name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Of a POSIX header: each is `LENGTH KEY=VALUE\\n`. Raises PackingError."""
    while content.strip(b"\0"):
        digits, _, rest = content.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        key, _, value = rest[: length - len(digits) - 1].partition(b"=")
        if not len(digits) + 3 < length <= len(content) or not value.endswith(b"\n"):
            raise PackingError("damaged: a header has no records")
        yield key, value[:-1]
        content = content[length:]


def _admit(entry: _Entry, guard: Guard, limits: Limits, number: int) -> None:
    name = entry.names[-1]
    limits.check_member(number, name, entry.size)
    if entry.type in DEVICES:
        raise PackingError(f"{shown(name)} is refused: it is a device")
    linked = entry.type in (tarfile.SYMTYPE, tarfile.LNKTYPE)
    for link in entry.links if linked else [""]:
        guard.admit(entry.names, link, hard=entry.type == tarfile.LNKTYPE)


def _with_size_record(block: bytes, content: bytes, size: int) -> tuple[bytes, bytes]:
    """A header that goes before a member's own, with another size if it says one."""
    info = _parsed(block)
    records = list(_records(content[: info.size])) if info is not None and info.type in LOCAL else []
    if not any(key == b"size" for key, _ in records):
        return block, content
    lines = [_record(key, b"%d" % size if key == b"size" else value) for key, value in records]
    told = b"".join(lines)
    return _with_size(block, len(told)), told + bytes(-len(told) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d" % length + rest


def _with_size(block: bytes, size: int) -> bytes:
    """With its checksum; what is too large for octal digits is written as GNU does."""
    told = b"%011o\0" % size if size < MOST_OCTAL else b"\x80" + size.to_bytes(11, "big")
    bare = block[:124] + told + block[136:148] + b" " * 8 + block[156:]
    return bare[:148] + b"%06o\0 " % sum(bare) + bare[156:]


def _exactly(stream: Metered, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise PackingError("cut short within a header")
    return data


def _copy(stream: Metered, out: Any, size: int) -> None:
    left = size
    while left:
        data = stream.read(min(CHUNK, left))
        if not data:
            raise PackingError(f"cut short: {left:,} bytes of a member are missing")
        left -= len(data)
        if out is not None:
            out.write(data)


def _copy_all(stream: Metered, out: Counted) -> None:
    while data := stream.read(CHUNK):
        out.write(data)
