"""Footage: what the frames around a frame know of it.

`windows` cuts a stream of frames into runs that carry the neighbours they need; `references` makes of
them what the network is shown beside each frame; `moved` makes footage of photographs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spair_core.footage.camera import CameraConfig, cut, filmed_window, moved
from spair_core.footage.references import references
from spair_core.footage.windows import Reach, Window, windows

if TYPE_CHECKING:
    from spair_core.footage.on_device import references_on

__all__ = [
    "CameraConfig",
    "Reach",
    "Window",
    "cut",
    "filmed_window",
    "moved",
    "references",
    "references_on",
    "steadiness",
    "windows",
]


def __getattr__(name: str) -> Any:
    """What needs torch comes when it is asked for: what only reads and writes files starts without it."""
    if name == "references_on":
        from spair_core.footage.on_device import references_on

        return references_on
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
