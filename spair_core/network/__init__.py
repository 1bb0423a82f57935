"""The networks: Net_L finds the degraded pixels, Net_R restores them, Spair is both.

`light`, `full` and `paper` are the presets, `ablation` those of the paper's table 6. Configurations come at
once, the networks and torch when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spair_core.network.configuration import (
    MULTIPLE,
    PRESETS,
    LocalizerConfig,
    NetworkConfig,
    RestorerConfig,
    ablation,
    full,
    light,
    paper,
)

if TYPE_CHECKING:
    from spair_core.network import blocks
    from spair_core.network.localization import Localization, Localizer
    from spair_core.network.restoration import DecoderBlock, Restorer
    from spair_core.network.spair import (
        SURE,
        Output,
        Spair,
        coarsen,
        grown,
        lowered,
        pad_to_multiple,
        replayed,
    )

__all__ = [
    "MULTIPLE",
    "PRESETS",
    "SURE",
    "DecoderBlock",
    "Localization",
    "Localizer",
    "LocalizerConfig",
    "NetworkConfig",
    "Output",
    "Restorer",
    "RestorerConfig",
    "Spair",
    "ablation",
    "blocks",
    "coarsen",
    "full",
    "grown",
    "light",
    "lowered",
    "pad_to_multiple",
    "paper",
    "replayed",
]


def __getattr__(name: str) -> Any:
    if name == "blocks":
        return import_module(f"{__name__}.blocks")
    if name in __all__:
        parts = (import_module(f"{__name__}.{part}") for part in ("spair", "restoration", "localization"))
        return next(getattr(part, name) for part in parts if hasattr(part, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
