"""Train Net_L and Net_R against raindrops on glass, and register the model.

    python jobs/train_raindrop.py --data s3://shards/agan --storage s3://models/runs --name raindrop-1

The paper's recipe: AGAN, batches of 8. Clean pictures get drops that are drawn anew each time.
"""

from __future__ import annotations

import tyro

from jobs.entry import run
from pipelines.training.settings import TrainConfig
from pipelines.training.train import train

RECIPE = TrainConfig(
    data=tyro.MISSING, storage=tyro.MISSING, name=tyro.MISSING, task="raindrop", batch_size=8
)

if __name__ == "__main__":
    run(train, RECIPE, __doc__ or "")
