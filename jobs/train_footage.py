"""Train both networks for footage in rain: streaks, and drops on the glass.

    python jobs/ingest.py --layout clips --source s3://dry-drives --destination s3://shards/drives
    python jobs/ingest.py --layout clean --task rain+raindrop --source s3://photos \\
        --destination s3://shards/photos
    python jobs/train_footage.py --data s3://shards/drives s3://shards/photos \\
        --storage s3://models/runs --name footage-1

Dry drives and photographs, half of which a simulated camera makes footage of, are put into weather that is
drawn anew each time, and are seen beside what neighbouring frames know. Dry drives matter: lane markings
stand still on the glass just as drops do. Net_L finds the cues within an hour and gains confidence for many,
so it learns alone first, and long.
"""

from __future__ import annotations

import tyro

from jobs.entry import run
from pipelines.training.settings import TrainConfig
from pipelines.training.train import train
from spair_core.learning import CropConfig, LearningConfig

RECIPE = TrainConfig(
    data=tyro.MISSING,
    storage=tyro.MISSING,
    name=tyro.MISSING,
    task="rain+raindrop",
    references=True,
    squeeze=True,
    joint=True,
    batch_size=8,
    crops=CropConfig(crop_size=128, dry=0.25),
    learning=LearningConfig(learning_rate=6e-4, betas=(0.9, 0.99), schedule="cosine", ema=0.999),
    start_from="rain-light",
)

if __name__ == "__main__":
    run(train, RECIPE, __doc__ or "")
