"""Train one model against rain streaks and raindrops alike, and register it.

    python jobs/train_joint.py --data s3://shards/rain13k s3://shards/agan --storage s3://models/runs \\
        --name joint-1

The supplement's recipe: Rain13K and AGAN together (14,573 pairs), one set of weights, batches of 8.
"""

from __future__ import annotations

import tyro

from jobs.entry import run
from pipelines.training.settings import TrainConfig
from pipelines.training.train import train

RECIPE = TrainConfig(
    data=tyro.MISSING,
    storage=tyro.MISSING,
    name=tyro.MISSING,
    task="rain+raindrop",
    register_as="spair-joint",
)

if __name__ == "__main__":
    run(train, RECIPE, __doc__ or "")
