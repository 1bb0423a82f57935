"""Several models on the same pictures: decoded pictures in, what a measure makes of the results out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from pipelines.media import NO_PIECE, Piece, packed, unpacked
from pipelines.services import cluster, models
from pipelines.services.models import ResolvedModel
from pipelines.services.quarantine import Quarantine, unforeseen
from spair_core import images, inference
from spair_core.footage import Window

if TYPE_CHECKING:
    from spair_core.network import Spair


@dataclass(frozen=True)
class Look:
    """What a model made of a picture: `pixels` uint8 [H, W, 3], `mask` bool [H, W], in so many seconds."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    seconds: float


Measure = Callable[[NDArray[np.uint8], list[Look]], tuple[dict[str, Any], bytes]]
"""Picture uint8 [H, W, 3] and what each model made of it -> plain values, and a panel as PNG or nothing."""


def picture_row(key: str, window: Window | None = None, error: str = "") -> dict[str, Any]:
    """A picture, or a frame with those around it, on its way to the models; or why there is none."""
    if window is None:
        return {"key": key, "error": error, **NO_PIECE}
    shown = replace(window, pixels=images.eight_bit(window.pixels))  # levels are of 255 in all that is told
    return {"key": key, "error": error, **packed(Piece(shown, None))}


def measured(
    contenders: Sequence[ResolvedModel],
    pictures: ray.data.Dataset,
    measure: Measure,
    *,
    actors: int,
    num_cpus: float,
    num_gpus: float,
    tile: int = inference.TILE,
) -> Iterator[dict[str, Any]]:
    """What `measure` gave for each of `picture_row`s, with its `key` and `panel`; or `error`, why nothing.

    Raises RuntimeError where the stream breaks.
    """
    pictures.context.target_max_block_size = cluster.BLOCK_BYTES
    rows = pictures.map(
        _Contenders,
        fn_constructor_kwargs={
            "files": [m.data for m in contenders],
            "measure": measure,
            "tile": tile,
            "quarantine": Quarantine(),
        },
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
    )
    try:
        for row in rows.iter_rows():
            yield {**{k: row[k] for k in ("key", "error", "panel")}, **json.loads(row["measured"])}
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"the stream of pictures broke: {error}") from error


def sorted_out(
    rows: Iterator[dict[str, Any]], where: str
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The rows that were measured, and the others' reasons. Raises ValueError where none was."""
    good: list[dict[str, Any]] = []
    unread: list[tuple[str, str]] = []
    for row in rows:
        if row["error"]:
            unread.append((row["key"], row["error"]))
        else:
            good.append(row)
    if not good:
        reasons = "\n".join(f"{key}: {reason}" for key, reason in unread)
        raise ValueError(f"no picture of {where} could be read:\n{reasons}")
    return good, sorted(unread)


class _Contenders:
    """The actor: holds the models, and shows each the same picture."""

    def __init__(self, files: list[bytes], measure: Measure, tile: int, quarantine: Quarantine) -> None:
        self.measure, self.tile, self.quarantine = measure, tile, quarantine
        self.models = [models.load_here(data) for data in files]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        answer = {"key": row["key"], "error": row["error"], "measured": "{}", "panel": b""}
        if row["error"]:
            return answer
        window = unpacked(row).window
        try:
            with self.quarantine.hold(row["key"]):
                looks = [self._look(model, window) for model in self.models]
                values, panel = self.measure(window.pixels[window.own[0]], looks)
        except (RuntimeError, MemoryError) as error:
            return {**answer, "error": f"the models could not restore it: {error}"}
        except Exception as error:  # noqa: BLE001 (it is this picture's alone)
            return {**answer, "error": f"the models could not restore it: {unforeseen(error)}"}
        return {**answer, "measured": json.dumps(values), "panel": panel}

    def _look(self, model: Spair, window: Window) -> Look:
        started = time.monotonic()
        result = inference.restore_window(model, window, tile=self.tile)
        return Look(result.pixels[0], result.mask[0], time.monotonic() - started)
