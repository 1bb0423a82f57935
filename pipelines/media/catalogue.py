"""All kinds of things that can be restored: the one place that a new one is entered."""

from __future__ import annotations

import posixpath
from pathlib import Path

from pipelines.media.archives import archive
from pipelines.media.clips import CLIP
from pipelines.media.frames import FRAMES
from pipelines.media.medium import Medium
from pipelines.media.pictures import PICTURE
from pipelines.media.tables import TABLE

# The kinds of what lies in archives are those below, and so they are looked up when they are asked for.
ARCHIVE = archive(lambda name: medium_of(name), lambda path: medium_in(path), lambda name: medium(name))

MEDIA: tuple[Medium, ...] = (PICTURE, FRAMES, CLIP, TABLE, ARCHIVE)


def medium_of(key: str) -> Medium | None:
    """The kind of an object, by the ending of its name (of several that have it, the usual one); None where
    it is none of ours."""
    found = _named(key)
    return next((one for one in found if one.holds is None), next(iter(found), None))


def medium_in(path: Path) -> Medium:
    """The kind of a local file, by its ending and by what is in it. Raises KeyError where it is none."""
    for one in _named(path.name):
        if one.holds is not None and one.holds(path):
            return one
    found = medium_of(path.name)
    if found is None:
        raise KeyError(path.suffix)
    return found


def _named(key: str) -> list[Medium]:
    name = posixpath.basename(key).lower()
    return [one for one in MEDIA if any(name.endswith(suffix) and name != suffix for suffix in one.suffixes)]


def medium(name: str) -> Medium:
    """The kind of that name. Raises KeyError."""
    return {one.name: one for one in MEDIA}[name]
