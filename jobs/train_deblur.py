"""Train Net_L and Net_R against motion blur, and register the model.

    python jobs/train_deblur.py --data s3://shards/gopro --storage s3://models/runs --name blur-1

The paper's recipe: GoPro (or RealBlur-J), batches of 16. Clean pictures are blurred anew each time.
"""

from __future__ import annotations

import tyro

from jobs.entry import run
from pipelines.training.settings import TrainConfig
from pipelines.training.train import train

RECIPE = TrainConfig(data=tyro.MISSING, storage=tyro.MISSING, name=tyro.MISSING, task="blur", batch_size=16)

if __name__ == "__main__":
    run(train, RECIPE, __doc__ or "")
