"""Train Net_L and Net_R against motion blur (the paper's recipe), and register the model.

python jobs/train_deblur.py --data s3://shards/gopro --storage s3://models/runs --name blur-1
"""

from __future__ import annotations

import tyro

from jobs.entry import run
from pipelines.training import TrainConfig, train

RECIPE = TrainConfig(data=tyro.MISSING, storage=tyro.MISSING, name=tyro.MISSING, task="blur", batch_size=16)


def main(config: TrainConfig) -> None:
    """Train; the model file and the registered version are printed."""
    train(config)


if __name__ == "__main__":
    run(main, RECIPE, __doc__ or "")
