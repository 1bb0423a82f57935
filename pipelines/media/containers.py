"""Containers of clips: what goes into each, and the one place to enter another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Container:
    """The files of some names, which FFmpeg reads and writes."""

    suffixes: frozenset[str]
    """Endings of names, in lower case with their dot."""
    codec: str = "libx264"
    """What restored frames are encoded with."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Of FFmpeg's muxer."""


# The index in front, so that a clip plays while it downloads.
MP4 = Container(frozenset({".mp4", ".m4v", ".mov"}), options={"movflags": "+faststart"})
MATROSKA = Container(frozenset({".mkv"}))
AVI = Container(frozenset({".avi"}), "mpeg4")  # without time stamps, it delays H.264 when played
WEBM = Container(frozenset({".webm"}), "libvpx-vp9")

CONTAINERS: tuple[Container, ...] = (MP4, MATROSKA, AVI, WEBM)


def container_of(suffix: str) -> Container:
    """The one whose clips end so, in any case. Raises KeyError."""
    return {ending: one for one in CONTAINERS for ending in one.suffixes}[suffix.lower()]
