"""Pictures of any size and runs of frames through the network, in the precision that a machine is fast in.

What is slow to import, the networks and torch, comes when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spair_core.inference.precision import Chosen, Precision, chosen, type_of
from spair_core.inference.settings import MIN_DEGRADED, OVERLAP, TILE, check_tile

if TYPE_CHECKING:
    from spair_core.inference.evenness import evened
    from spair_core.inference.restoring import Restored, harmless, restore
    from spair_core.inference.runs import BATCH_PIXELS, restore_window
    from spair_core.inference.tiles import spans

__all__ = [
    "BATCH_PIXELS",
    "MIN_DEGRADED",
    "OVERLAP",
    "TILE",
    "Chosen",
    "Precision",
    "Restored",
    "check_tile",
    "chosen",
    "evened",
    "harmless",
    "restore",
    "restore_window",
    "spans",
    "type_of",
]


_IN = {"evened": "evenness", "spans": "tiles", "BATCH_PIXELS": "runs", "restore_window": "runs"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"{__name__}.{_IN.get(name, 'restoring')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
