"""What an archive's members are to those who walk it, and what is refused."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

CHUNK = 1 << 20


class PackingError(ValueError):
    """An archive that is damaged or refused; the message says why."""


class MemberError(ValueError):
    """This member's content cannot be read, that of the others may; the message says why."""


@contextmanager
def damage_as(failure: type[Exception], *damage: type[Exception], words: str = "damaged") -> Iterator[None]:
    """Turn what decoders raise of bad bytes into one error."""
    try:
        yield
    except damage as error:
        raise failure(f"{words}: {error}") from error
    except OSError as error:
        # gzip and bz2 say so of damage; a disk's errors have a number.
        if error.errno is not None:
            raise
        raise failure(f"damaged: {error}") from error


@dataclass(frozen=True)
class Limits:
    """What is refused while an archive is walked."""

    members: int = 1_000_000
    member_bytes: int = 64 << 30
    """Of one member, unpacked: as much as the disk must hold at once."""
    all_bytes: int = 1 << 40
    """Of all members, unpacked."""
    ratio: int = 200
    """All that is unpacked over the size of the archive,"""
    free_bytes: int = 1 << 30
    """where it is more than this."""

    def check(self, packed: int, unpacked: int) -> None:
        """Raises PackingError where so many bytes of an archive of so many are too many."""
        if unpacked > self.all_bytes:
            raise PackingError(f"more than {self.all_bytes:,} bytes unpacked, which is refused")
        if unpacked > max(self.free_bytes, self.ratio * packed):
            raise PackingError(f"unpacked more than {self.ratio} times its size, which is refused as a bomb")

    def check_member(self, number: int, name: str, size: int) -> None:
        """The same for the member at a place, by the size that it says it has."""
        if number >= self.members:
            raise PackingError(f"more than {self.members:,} members, which is refused")
        if not 0 <= size <= self.member_bytes:
            raise PackingError(f"{shown(name)} is refused: it says it has {size:,} bytes")


@dataclass
class Member:
    """A member, as it comes by. Who walks may spool it, and may say what takes its place."""

    name: str
    """As the archive has it, in one line that can be printed."""
    spool_to: Callable[[Path], None] | None
    """Writes a file's content; None for folders, links and the like."""
    note: str = ""
    """What is amiss with it, where that is no reason to refuse the archive."""
    restored: Path | None = None
    """To be set before the next member is asked for: the file that takes its place."""

    def spool(self, path: Path) -> Path:
        """Write the content to a file of the caller's own naming. Raises MemberError, PackingError."""
        assert self.spool_to is not None
        self.spool_to(path)
        return path


@dataclass
class Guard:
    """Refuses what would be written elsewhere if somebody unpacked the archive by its names.

    Links are left as they are where they are relative and stay inside whatever other links there are: `..`
    only at the beginning of a target, and no name that passes through a link.
    """

    links: set[str] = field(default_factory=set)

    def admit(self, names: Sequence[str], link: str = "", *, hard: bool = False) -> None:
        """All the names that one member goes by, and what it links to. Raises PackingError."""
        for name in names:
            reason = _outside(name) or self._through(name)
            if reason:
                raise PackingError(f"{shown(name)} is refused: its name {reason}")
            if _outside(link) or self._through(link) if hard else _target_outside(name, link):
                raise PackingError(f"{shown(name)} is refused: it links to {shown(link)}")
        if link and not hard:
            self.links |= {_key(name) for name in names}

    def _through(self, name: str) -> str:
        parts = _key(name).split("/") if self.links else []
        folders = ("/".join(parts[:end]) for end in range(1, len(parts)))
        return "passes through a link" if any(folder in self.links for folder in folders) else ""


def _outside(name: str) -> str:
    if _slashed(name).startswith("/"):
        return "is absolute"
    if re.match("[A-Za-z]:", name):
        return "begins with a drive"
    if ".." in _slashed(name).split("/"):
        return "has a component .."
    return "has a NUL" if "\0" in name else ""


def _target_outside(name: str, target: str) -> str:
    parts = [part for part in _slashed(target).split("/") if part not in ("", ".")]
    up = next((place for place, part in enumerate(parts) if part != ".."), len(parts))
    depth = _key(name).count("/")
    rest = "/" if _slashed(target).startswith("/") else "/".join(parts[up:])
    return "leads out" if up > depth else _outside(rest)


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def _key(name: str) -> str:
    """The same for all names of one file, on any file system."""
    return posixpath.normpath(_slashed(name)).casefold()


def shown(name: str) -> str:
    """A name that can be printed, and is one line."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)


def copy(source: IO[bytes], target: Any, size: int | None = None) -> int:
    """So many bytes (all) from one file to another; how many there were."""
    left, copied = size, 0
    while left is None or left > 0:
        data = source.read(CHUNK if left is None else min(CHUNK, left))
        if not data:
            break
        target.write(data)
        copied += len(data)
        left = None if left is None else left - len(data)
    return copied
