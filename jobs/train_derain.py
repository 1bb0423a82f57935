"""Train Net_L and Net_R against rain streaks, and register the model.

    python jobs/train_derain.py --data s3://shards/rain13k --storage s3://models/runs --name rain-1

The paper's recipe: Rain13K, batches of 8, a rate of 2e-4 that is halved every 50 epochs. For one set alone
(SPA, Rain100H-original) give that set. Clean pictures are put into rain that is drawn anew each time.
"""

from __future__ import annotations

import tyro

from jobs.entry import run
from pipelines.training.settings import TrainConfig
from pipelines.training.train import train

RECIPE = TrainConfig(data=tyro.MISSING, storage=tyro.MISSING, name=tyro.MISSING, task="rain", batch_size=8)

if __name__ == "__main__":
    run(train, RECIPE, __doc__ or "")
