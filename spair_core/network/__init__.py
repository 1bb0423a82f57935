"""The networks: Net_L finds the degraded pixels, Net_R restores them, Spair is both.

`light`, `full` and `paper` are the presets, `ablation` those of the paper's table 6.
"""

from spair_core.network.localization import Localization, Localizer, LocalizerConfig
from spair_core.network.restoration import DecoderBlock, Restorer, RestorerConfig
from spair_core.network.spair import (
    MULTIPLE,
    PRESETS,
    NetworkConfig,
    Output,
    Spair,
    ablation,
    coarsen,
    full,
    grown,
    light,
    lowered,
    pad_to_multiple,
    paper,
    replayed,
)

__all__ = [
    "MULTIPLE",
    "PRESETS",
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
