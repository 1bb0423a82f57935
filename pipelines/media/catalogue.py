"""All kinds of things that can be restored: the one place that a new one is entered."""

from __future__ import annotations

import posixpath

from pipelines.media.clips import CLIP
from pipelines.media.medium import Medium
from pipelines.media.pictures import PICTURE

MEDIA: tuple[Medium, ...] = (PICTURE, CLIP)


def medium_of(key: str) -> Medium | None:
    """The kind of an object, by the ending of its name; None where it is none of ours."""
    suffix = posixpath.splitext(key)[1].lower()
    return next((one for one in MEDIA if suffix in one.suffixes), None)


def medium(name: str) -> Medium:
    """The kind of that name. Raises KeyError."""
    return {one.name: one for one in MEDIA}[name]
