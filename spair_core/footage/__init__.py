"""Footage: what the frames around a frame know of it.

`windows` cuts a stream of frames into runs that carry the neighbours they need; `references` makes of
them what the network is shown beside each frame; `moved` makes footage of photographs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spair_core.footage.camera import CameraConfig, cut, filmed_window, moved
from spair_core.footage.references import aligned, references
from spair_core.footage.windows import ROUNDS, Beside, Reach, Window, closest, windows

if TYPE_CHECKING:
    from spair_core.footage.on_device import aligned_on, references_on

__all__ = [
    "ROUNDS",
    "Beside",
    "CameraConfig",
    "Reach",
    "Window",
    "aligned",
    "aligned_on",
    "closest",
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
    if name in ("aligned_on", "references_on"):
        return getattr(import_module(f"{__name__}.on_device"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
