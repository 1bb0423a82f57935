"""How the networks learn, on one device and without a cluster.

`learner` is a training step and its objectives; `samples` makes the crops that a step takes; `pack` is a
file of pictures and clips, and `pool` the windows drawn out of it; `single` trains from such a file on one
device (`python -m spair_core.learning.single`), `ablation` several networks that see less and less.
"""

from spair_core.learning.learner import Batch, Learner, LearningConfig, Phase
from spair_core.learning.samples import CropConfig, columns_of, crop_of, filmed, to_batch

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
