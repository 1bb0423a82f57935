"""Train the ablations Net1 to Net5 of the paper's table 6 with one recipe, judge each, and print the table.

    python jobs/ablate.py --data s3://shards/agan --test data/AGAN-a --task raindrop \
        --storage s3://models/ablations --name agan

Started again under the same name, it goes on where it was.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

import tyro

from jobs.entry import run
from pipelines.data import pairs
from pipelines.judging import evaluation, paper
from pipelines.judging.evaluation import EvaluateConfig, plain
from pipelines.services import locations, models, storage
from pipelines.training.settings import TrainConfig
from pipelines.training.train import train

RECIPE = TrainConfig(data=tyro.MISSING, storage=tyro.MISSING, name=tyro.MISSING)


@dataclass(frozen=True)
class AblateConfig:
    """Which ablations, the recipe that all are trained with, and the sets that judge them."""

    test: tuple[str, ...]
    """Shards or folders of pairs to judge on: AGAN-a or GoPro in the paper."""
    nets: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Which of Net1 to Net5."""
    recipe: TrainConfig = field(default_factory=lambda: RECIPE)
    actors: int = 1
    """Processes that hold the model while it is judged."""
    num_gpus: float = 0.0
    """GPUs of each of them."""
    limit: int | None = None
    """Judge on only so many pictures of each set."""
    json: str | None = None
    """Write the table here as well."""

    def __post_init__(self) -> None:
        unknown = [number for number in self.nets if number not in paper.ABLATIONS]
        if unknown or not self.nets:
            raise ValueError(f"nets are some of {tuple(paper.ABLATIONS)}, not {unknown or 'none'}")
        self.evaluation()  # what cannot be is told at once

    def training(self, number: int) -> TrainConfig:
        """The recipe for one of the nets, a run and a registered model of its own."""
        registered = f"{self.recipe.register_as or f'spair-{self.recipe.task}'}-net{number}"
        name = f"{self.recipe.name}-net{number}"
        return replace(self.recipe, ablation=number, name=name, register_as=registered)

    def evaluation(self) -> EvaluateConfig:
        """How each is judged."""
        return EvaluateConfig(self.test, actors=self.actors, num_gpus=self.num_gpus, limit=self.limit)


def main(config: AblateConfig) -> None:
    """Train and judge one net after another; the table grows with each."""
    if config.json:
        storage.check_writable(locations.folder_of(config.json))
    pairs.list_examples(config.test, limit=1)  # what is not there should be known before training
    results = {}
    for number in config.nets:
        model = models.resolve(train(config.training(number)))
        results[number] = evaluation.evaluate(config.evaluation(), model)
        comparison = paper.compare_ablations(results, config.recipe.task, limit=config.limit)
        print(paper.text(comparison), flush=True)
        if config.json:
            text = json.dumps(plain(asdict(comparison)), indent=1, allow_nan=False)
            storage.write_bytes(config.json, text.encode())


if __name__ == "__main__":
    run(main, AblateConfig, __doc__ or "")
