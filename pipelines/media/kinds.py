"""Which kind of thing an object of a bucket is, by its name."""

from __future__ import annotations

import posixpath

from pipelines.media import video
from spair_core import images

PICTURE, CLIP, OTHER = "picture", "clip", "other"


def kind_of(key: str) -> str:
    """`picture`, `clip` or `other`, by the ending of a name."""
    suffix = posixpath.splitext(key)[1].lower()
    return PICTURE if suffix in images.SUFFIXES else CLIP if suffix in video.SUFFIXES else OTHER
