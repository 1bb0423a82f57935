"""How the networks learn, on one device and without a cluster, from settings that need no torch.

`learner` is a training step, `samples` makes the crops that it takes; `pack` is a file of pictures and clips,
and `pool` the windows drawn out of it; `single` trains from it (`python -m spair_core.learning.single`),
`ablation` networks that see less and less, and `judging` says what weights make of what they have not seen.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spair_core.learning.samples import columns_of, crop_of, filmed
from spair_core.learning.settings import CropConfig, LearningConfig, Phase

if TYPE_CHECKING:
    from spair_core.learning.learner import Batch, Learner, to_batch

__all__ = [
    "Batch",
    "CropConfig",
    "Learner",
    "LearningConfig",
    "Phase",
    "columns_of",
    "crop_of",
    "filmed",
    "to_batch",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"{__name__}.learner"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
