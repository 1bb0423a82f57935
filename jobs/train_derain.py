"""Train Net_L and Net_R against rain streaks (the paper's recipe), and register the model.

python jobs/train_derain.py --data s3://shards/rain13k --storage s3://models/runs --name rain-1
"""

from __future__ import annotations

import tyro

from jobs.entry import run
from pipelines.training import TrainConfig, train

RECIPE = TrainConfig(data=tyro.MISSING, storage=tyro.MISSING, name=tyro.MISSING, task="rain", batch_size=8)


def main(config: TrainConfig) -> None:
    """Train; the model file and the registered version are printed."""
    train(config)


if __name__ == "__main__":
    run(main, RECIPE, __doc__ or "")
