"""Train Net_L and Net_R against cast shadows, and register the model.

    python jobs/train_shadow.py --data s3://shards/istd --storage s3://models/runs --name shadow-1

The paper's recipe: ISTD with its masks, batches of 8. Clean pictures get shadows that are drawn anew each
time.
"""

from __future__ import annotations

import tyro

from jobs.entry import run
from pipelines.training.settings import TrainConfig
from pipelines.training.train import train

RECIPE = TrainConfig(data=tyro.MISSING, storage=tyro.MISSING, name=tyro.MISSING, task="shadow", batch_size=8)

if __name__ == "__main__":
    run(train, RECIPE, __doc__ or "")
