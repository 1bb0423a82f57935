"""What belongs to a process: its descendants, and the addresses on which they listen."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

LISTENING = "0A"


def _parents() -> dict[int, int]:
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return parents


def descendants(root: int) -> set[int]:
    """Process ids below one, itself included."""
    parents, found = _parents(), {root}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def _sockets(process: int) -> set[str]:
    try:
        links = [os.readlink(f"/proc/{process}/fd/{name}") for name in os.listdir(f"/proc/{process}/fd")]
    except (FileNotFoundError, ProcessLookupError):
        return set()
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def _address(field: str) -> str:
    raw = bytes.fromhex(field.partition(":")[0])
    words = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    family = socket.AF_INET if len(words) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, words).removeprefix("::ffff:")


def addresses(root: int) -> set[str]:
    """The addresses on which a process or a descendant of it listens (TCP)."""
    inodes = set().union(*(_sockets(process) for process in descendants(root)))
    tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    return {_address(row[1]) for row in rows if row[3] == LISTENING and row[9] in inodes}


@pytest.fixture
def listening() -> Callable[[int], set[str]]:
    """`listening(pid)`: the addresses on which that process and its descendants listen."""
    return addresses


@pytest.fixture
def family() -> Callable[[int], set[int]]:
    """`family(pid)`: that process and its descendants."""
    return descendants
