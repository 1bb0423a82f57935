"""The kinds of archives, told by their first bytes whatever their names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelines.media.packings import tarballs, zips
from pipelines.media.packings.packing import Limits, Member, PackingError

SUFFIXES = frozenset(
    {".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip"}
)
"""Endings of archives' names, in lower case."""


def walk(path: Path, into: Path | None = None, limits: Limits | None = None) -> Iterator[Member]:
    """The members of an archive in an order that is always the same.

    `into` is the archive to write meanwhile, of the same kind and compression, with the same members as they
    were but for those whose `restored` was set. Raises PackingError: no archive, damaged, cut short, refused.
    """
    with path.open("rb") as file:
        start = file.read(2)
    if not start:
        raise PackingError("the file is empty")
    kind = zips if start == b"PK" or path.name.lower().endswith(".zip") else tarballs
    yield from kind.walk(path, into, limits or Limits())
