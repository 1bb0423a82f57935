"""Whether models leave clean pictures alone: what they make of them, against the pictures themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data import pairs
from pipelines.judging.contenders import Look, measured, picture_row, sorted_out
from pipelines.services import cluster, locations, storage
from pipelines.services.models import ResolvedModel
from spair_core import images, metrics
from spair_core.footage import Window
from spair_core.images import PictureError

CLEAN_CEILING = 60.0
"""dB. Rounding to 8 bits alone leaves 58.9: what changed less than that has not changed."""


@dataclass(frozen=True)
class Untouched:
    """What a model leaves of clean pictures: PSNR in dB against what went in, of `count` pictures.

    More than CLEAN_CEILING counts as that. `degraded_share` is what it took for degraded.
    """

    model: str
    count: int
    psnr: float
    worst: tuple[str, float]
    degraded_share: float
    unread: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        key, psnr = self.worst
        lines = [
            f"{self.model}: {self.psnr:.2f} dB over {self.count} clean pictures, {psnr:.2f} dB on {key}, its "
            f"worst; {self.degraded_share:.4f} of their pixels taken for degraded"
        ]
        return "\n".join(lines + [f"not read: {key}: {reason}" for key, reason in self.unread])


def untouched(
    contenders: Sequence[ResolvedModel],
    clean: Sequence[str],
    *,
    actors: int = 1,
    num_gpus: float = 0.0,
    limit: int | None = None,
) -> list[Untouched]:
    """What each model leaves of clean pictures: those in folders, or the targets of shards and of pairs.

    `limit` bounds the pictures of each of them (of shards, the row groups so that as many remain).
    Raises StorageError; ValueError where no picture could be read.
    """
    targets = {uri: locations.join(uri, "target") for uri in clean}
    places = [target if storage.exists(target) else uri for uri, target in targets.items()]
    items = pairs.list_examples(places, layout="clean", limit=limit)
    cluster.connect()
    cpus = cluster.cpu_shares(actors, gpus=num_gpus)
    pictures = pairs.examples(items, num_cpus=cpus[1]).map(_target, num_cpus=cpus[1])
    rows = measured(contenders, pictures, _changes, actors=actors, num_cpus=cpus[0], num_gpus=num_gpus)
    good, unread = sorted_out(rows, ", ".join(clean))
    return [_left(model, number, good, unread) for number, model in enumerate(contenders)]


def _left(
    model: ResolvedModel, number: int, good: list[dict[str, Any]], unread: list[tuple[str, str]]
) -> Untouched:
    worst = min(good, key=lambda row: row["psnr"][number])
    return Untouched(
        model.uri,
        len(good),
        float(np.mean([row["psnr"][number] for row in good])),
        (worst["key"], worst["psnr"][number]),
        float(np.mean([row["share"][number] for row in good])),
        tuple(unread),
    )


def _target(row: dict[str, Any]) -> dict[str, Any]:
    key = f"{row['set']}/{row['key']}"
    try:
        return (
            picture_row(key, error=row["error"])
            if row["error"]
            else picture_row(key, Window.alone(images.decode(row["target"]).pixels[None]))
        )
    except PictureError as error:
        return picture_row(key, error=str(error))


def _changes(pixels: NDArray[np.uint8], looks: list[Look]) -> tuple[dict[str, Any], bytes]:
    """How far each model is from leaving a picture as it is."""
    psnr = [min(metrics.psnr(look.pixels, pixels), CLEAN_CEILING) for look in looks]
    return {"psnr": psnr, "share": [float(look.mask.mean()) for look in looks]}, b""
