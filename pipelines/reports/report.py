"""The supplement's figures for any model and picture: a page and its numbers, kept and logged to MLflow."""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

import numpy as np
import ray.data
import torch
from numpy.typing import NDArray

from pipelines.data import pairs, shards
from pipelines.reports import page
from pipelines.services import cluster, locations, models, storage, tracking
from pipelines.services.models import ResolvedModel
from pipelines.services.tracking import Run
from spair_core import images, weights
from spair_core.degradations import catalogue
from spair_core.images import PictureError
from spair_core.insight import analysis
from spair_core.insight.analysis import Analysis, Truth


@dataclass(frozen=True)
class AnalyseConfig:
    """Which model to look at, on which pictures."""

    destination: str
    """Folder or prefix for the pages, their numbers (JSON) and maps (NPZ)."""
    picture: str | None = None
    """A degraded picture."""
    clean: str | None = None
    """The same without degradation; unless it is given, what needs it is left out."""
    mask: str | None = None
    """Its true mask, white = degraded; by default where the picture and the clean one differ."""
    data: tuple[str, ...] = ()
    """Instead of one picture: shards, folders of pairs (input/, target/), or folders of such folders."""
    model: str = "rain-light"
    """A file, a URI, models:/spair-rain@champion, or the name of shipped weights."""
    pixel: tuple[int, int] | None = None
    """Row and column at which to look at SNL; by default where the picture is degraded most."""
    max_side: int = 1024
    """Of larger pictures, look at so many pixels a side, round the chosen pixel or in the middle."""
    limit: int | None = None
    """Look at only so many pictures of each set of `data`."""
    actors: int = 1
    """Processes that look at the pictures of `data`."""
    num_gpus: float = 0.0
    """GPUs of each of them; 0 computes on CPUs."""
    experiment: str = "spair-analysis"
    """MLflow experiment."""

    def __post_init__(self) -> None:
        if (self.picture is None) == (not self.data):
            raise ValueError(
                "name either one --picture (with --clean or --mask where there are such) or --data"
            )
        if self.data and (self.clean or self.mask):
            raise ValueError(
                "--clean and --mask belong to one --picture; --data has its own in target/ and mask/"
            )
        if self.max_side < 8:
            raise ValueError(f"max_side must be at least 8 pixels, not {self.max_side}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, not {self.limit}")
        cluster.check_actors(self.actors, self.num_gpus)


@dataclass(frozen=True)
class Outcome:
    """What became of one picture: its `page` and chief `numbers`, or the `error` why it has none."""

    name: str
    page: str
    numbers: dict[str, float]
    error: str = ""


def report(config: AnalyseConfig) -> list[Outcome]:
    """Look at every picture: a page each, an index of them, and all of it logged as one MLflow run.

    Raises ModelError, StorageError, TrackingError; ValueError where not one picture could be looked at.
    """
    cluster.check_answers()
    tracking.check()
    storage.check_writable(config.destination)
    model = models.resolve(config.model)
    with tracking.run(config.experiment, config.destination) as run:
        run.log_params(config)
        run.set_tags({"model": model.uri, "digest": model.digest})
        rows = _of_data(config, model, run) if config.data else [_of_picture(config, model, run)]
        outcomes = sorted(
            (Outcome(**{**row, "numbers": json.loads(row["numbers"])}) for row in rows),
            key=lambda outcome: outcome.name,
        )
        good = {outcome.name: outcome.numbers for outcome in outcomes if not outcome.error}
        rejected = [(outcome.name, outcome.error) for outcome in outcomes if outcome.error]
        index = page.index(model.uri, good, rejected).encode()
        for step, numbers in enumerate(good.values()):
            run.log_metrics(numbers, step)
        storage.write_bytes(locations.join(config.destination, "index.html"), index)
        run.log_bytes("index.html", index)
        if not good:
            reasons = "\n".join(f"{name}: {reason}" for name, reason in rejected)
            raise ValueError(f"no picture could be looked at:\n{reasons}")
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> str:
    """A line a picture, for people."""
    lines = []
    for outcome in outcomes:
        n = outcome.numbers
        line = f"rejected: {outcome.name}: {outcome.error}"
        if not outcome.error:
            line = f"{outcome.page}: {n['density']:.1%} found degraded, "
            line += f"{n['macs_per_pixel'] / 1000:.1f}k multiply-accumulates a pixel"
        if "psnr.restored.everywhere" in n:
            line += f", {n['psnr.input.everywhere']:.2f} -> {n['psnr.restored.everywhere']:.2f} dB"
        lines.append(line)
    return "\n".join(lines)


def _of_data(config: AnalyseConfig, model: ResolvedModel, run: Run) -> Iterator[dict[str, Any]]:
    items = pairs.list_examples(config.data, limit=config.limit)
    cluster.connect()
    actor_cpus, task_cpus = cluster.cpu_shares(config.actors, gpus=config.num_gpus)
    looked_at = pairs.examples(items, num_cpus=task_cpus).map(
        _Analyst,
        fn_constructor_kwargs={"config": config, "model": model, "run": run},
        compute=ray.data.ActorPoolStrategy(size=config.actors),
        num_cpus=actor_cpus,
        num_gpus=config.num_gpus or None,
    )
    yield from looked_at.iter_rows()


def _of_picture(config: AnalyseConfig, model: ResolvedModel, run: Run) -> dict[str, Any]:
    uris = {"input": config.picture, "target": config.clean, "mask": config.mask}
    row = {role: None if uri is None else storage.read_bytes(uri) for role, uri in uris.items()}
    key = posixpath.splitext(locations.name_of(config.picture or ""))[0]
    return _Analyst(config, model, run)(
        {**row, "set": "", "key": key, "source": config.picture, "error": None}
    )


class _Analyst:
    """Holds the model; writes and logs the page of one picture (a shard row) after the other."""

    def __init__(self, config: AnalyseConfig, model: ResolvedModel, run: Run) -> None:
        self.config, self.run, self.uri = config, run, model.uri
        network, self.card = weights.load(model.data)
        self.on = "RGB" if catalogue.measures(self.card.task) == {"RGB"} else "Y"
        self.network = network.to("cuda") if config.num_gpus and torch.cuda.is_available() else network

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        name = posixpath.join(row["set"], row["key"])
        outcome = {"name": name, "page": "", "numbers": "{}", "error": row["error"] or ""}
        if row["error"]:
            return outcome
        try:
            found = self._look_at(row)
        except (ValueError, RuntimeError) as error:
            return {**outcome, "error": str(error)}
        return {**outcome, "page": self._write(name, found), "numbers": json.dumps(found.numbers())}

    def _look_at(self, row: dict[str, Any]) -> Analysis:
        picture, truth = _decoded(row, self.card.mask_threshold)
        return analysis.analyse(
            self.network,
            picture,
            truth,
            pixel=self.config.pixel,
            on_luma=self.on == "Y",
            max_side=self.config.max_side,
        )

    def _write(self, name: str, found: Analysis) -> str:
        facts = {"picture": name, "model": self.uri, "numbers": found.numbers(), "analysis": _plain(found)}
        files = {
            f"{name}.html": page.page(name, self.uri, self.card, found, self.on).encode(),
            f"{name}.json": json.dumps(facts, indent=1, allow_nan=False).encode(),
            f"{name}.npz": _maps(found),
        }
        for path, data in files.items():
            storage.write_bytes(locations.join(self.config.destination, path), data)
            self.run.log_bytes(path, data)
        return locations.join(self.config.destination, f"{name}.html")


def _decoded(row: dict[str, Any], threshold: float) -> tuple[NDArray[np.uint8], Truth | None]:
    """The degraded picture of a row, and what is known of it. Raises PictureError, naming the source."""
    if row["target"] is not None:
        example, degraded = shards.judged_example(row, threshold)
        return degraded, Truth(cast(NDArray[np.bool_], example.mask), example.clean)
    try:
        picture = images.decode(row["input"]).pixels
        return picture, None if row["mask"] is None else Truth(images.decode_mask(row["mask"]))
    except PictureError as error:
        raise PictureError(f"{row['source']}: {error}") from error


def _plain(value: Any) -> Any:
    """Dataclasses, tuples and arrays as JSON has them; maps (arrays of two axes and more) are left out."""
    if is_dataclass(value):
        values = {field.name: getattr(value, field.name) for field in fields(value)}
        return {k: _plain(v) for k, v in values.items() if not isinstance(v, np.ndarray) or v.ndim == 1}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _maps(found: Analysis) -> bytes:
    """The maps as NPZ: what the JSON leaves out, but for the pictures that were given."""
    maps: dict[str, Any] = {
        "restored": found.restored,
        "logits": found.logits,
        "mask": found.mask,
        "cost": found.cost,
    }
    if found.truth is not None:
        maps["true_mask"] = found.truth.mask
    if found.clean_error is not None:
        maps |= {"clean_error_before": found.clean_error.before, "clean_error_after": found.clean_error.after}
    for level in found.attentions:
        for number, step in enumerate(level.steps, 1):
            maps[f"attention_{level.level}_step{number}"] = step.weights
    stream = io.BytesIO()
    np.savez_compressed(stream, **maps)
    return stream.getvalue()
