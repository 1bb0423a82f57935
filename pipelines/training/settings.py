"""What a training is: its data, its network, its phases and the workers that it takes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pipelines.data.shards import RowGroup
from pipelines.services import locations, models
from pipelines.services.models import ResolvedModel
from spair_core import network
from spair_core.degradations.catalogue import Task
from spair_core.learning import CropConfig, LearningConfig, Phase
from spair_core.network import NetworkConfig


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    data: tuple[str, ...]
    """URIs of training shards, as jobs/ingest.py wrote them."""
    storage: str
    """URI under which checkpoints and the final model are kept, such as s3://models/runs."""
    name: str
    """The run's name. A run started again under its name goes on from its last checkpoint."""
    validation: tuple[str, ...] = ()
    """URIs of validation shards; without them nothing is validated."""
    task: Task = "rain"
    """What the model takes away."""
    preset: Literal["light", "full", "paper"] = "light"
    """The network's size."""
    references: bool = False
    """Show both networks what neighbouring frames know: for footage, and as good for pictures."""
    squeeze: bool = False
    """Let Net_L weigh its channels by their statistics over the picture (squeeze-and-excitation)."""
    ablation: int | None = None
    """Train Net1 to Net5 of the paper's table 6 on the preset's widths; by default the preset itself."""
    localize_epochs: int = 90
    """Epochs of Net_L alone."""
    restore_epochs: int = 200
    """Epochs of Net_R."""
    joint: bool = False
    """Let Net_L learn on beside Net_R instead of freezing it."""
    epoch_steps: int | None = None
    """Steps of an epoch; by default one pass over the data."""
    batch_size: int = 8
    """Crops of a step, over all workers."""
    crops: CropConfig = field(default_factory=CropConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    validate_every: int = 5
    """Epochs between validations."""
    validation_limit: int = 32
    """Most validation pictures looked at: one of each set in turn."""
    workers: int = 1
    """Data-parallel workers, over as many nodes as they need."""
    min_workers: int | None = None
    """Go on with so few of them where nodes are lost, and take up more when they are back (elastic)."""
    gpu: bool = False
    """Give each worker a GPU."""
    cpus_per_worker: float = 1
    """CPUs kept for a worker; leave some in the cluster for reading the shards."""
    max_failures: int = 3
    """Worker failures after which the run gives up."""
    keep_checkpoints: int = 2
    """Checkpoints kept."""
    experiment: str = "spair-training"
    """MLflow experiment."""
    register_as: str | None = None
    """Registered model's name; by default spair-TASK."""
    start_from: str | None = None
    """Weights to start from instead of random ones: shipped weights, a file, a URI or models:/NAME@ALIAS.
    They may be of a network without references or squeezing, which then begin by changing nothing."""
    keep_localizers: tuple[int, ...] = ()
    """Numbers of epochs after which Net_L is kept, as STORAGE/NAME/localizer-N.safetensors (table S3)."""

    def __post_init__(self) -> None:
        self.network()  # what is no ablation is told at once
        if not 1 <= self.fewest <= self.workers <= self.batch_size:
            raise ValueError(
                f"min_workers ({self.min_workers}), workers ({self.workers}) and batch_size "
                f"({self.batch_size}) must ascend from 1: every worker needs a crop"
            )
        if self.crops.crop_size < 1 or self.crops.crop_size % network.MULTIPLE:
            raise ValueError(
                f"crop_size must be a multiple of {network.MULTIPLE}, not {self.crops.crop_size}: "
                f"the networks' coarsest level is 1/{network.MULTIPLE}"
            )

    @property
    def fewest(self) -> int:
        """Workers without which the run does not go on."""
        return self.workers if self.min_workers is None else self.min_workers

    def network(self) -> NetworkConfig:
        """The configuration of the preset, or of its ablation. Raises ValueError for an unknown ablation."""
        preset = network.PRESETS[self.preset]()
        localizer = replace(preset.localizer, squeeze=self.squeeze)
        preset = replace(preset, localizer=localizer, references=self.references)
        return preset if self.ablation is None else network.ablation(self.ablation, preset)

    def trained(self, start: ResolvedModel | None) -> NetworkConfig:
        """The configuration of what comes out: its thresholds are those of the weights it started from."""
        return self.network() if start is None else self.network().at_thresholds_of(start.card.network)

    def start(self) -> ResolvedModel | None:
        """The model of `start_from`. Raises ModelError where it is not there or of another network."""
        if self.start_from is None:
            return None
        model = models.resolve(self.start_from)
        try:
            network.grown(model.build(), self.network())
        except ValueError as error:
            raise models.ModelError(
                f"{self.start_from} holds another network than preset {self.preset}: start from weights of "
                "that preset, or choose the preset (and --references, --squeeze) that they were trained with"
            ) from error
        return model

    def provenance(self, groups: list[RowGroup], measured: dict[str, float]) -> dict[str, str]:
        """Where the weights come from, for the model file's header."""
        facts: dict[str, Any] = {
            "preset": self.preset,
            "data": " ".join(sorted({locations.name_of(uri) for uri in self.data})),
            "pictures": sum(group.rows for group in groups),
            "epochs": f"{self.localize_epochs} + {self.restore_epochs}{' joint' if self.joint else ''}",
            "batch": f"{self.batch_size} crops of {self.crops.crop_size}",
            "learning": self.learning,
            "seed": self.crops.seed,
            **({"started from": self.start_from} if self.start_from else {}),
        }
        return {k: str(v) for k, v in facts.items()} | {k: f"{v:.4f}" for k, v in measured.items()}

    def anywhere(self) -> TrainConfig:
        """The same for workers, which read and write what lies at its locations from folders of their own."""

        def absolute(uri: str | None) -> str | None:
            return uri and locations.absolute(uri)

        crops = self.crops
        layers, masks, shakes = absolute(crops.layers), absolute(crops.shadow_masks), absolute(crops.shakes)
        crops = replace(crops, layers=layers, shadow_masks=masks, shakes=shakes)
        return replace(self, storage=locations.absolute(self.storage), crops=crops)

    @property
    def epochs(self) -> int:
        """Of both phases."""
        return self.localize_epochs + self.restore_epochs

    def phase(self, epoch: int) -> tuple[Phase, int, int]:
        """The phase of an epoch, the epoch's number within it and the phase's length."""
        if epoch < self.localize_epochs:
            return "localize", epoch, self.localize_epochs
        return ("joint" if self.joint else "restore"), epoch - self.localize_epochs, self.restore_epochs
