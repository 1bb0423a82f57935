"""All degradations there are: the one place that a new one is entered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from spair_core.degradations.degradation import Degradation, Measure
from spair_core.degradations.motion import BLUR
from spair_core.degradations.rain import RAIN
from spair_core.degradations.raindrops import RAINDROP
from spair_core.degradations.shadows import SHADOW

DEGRADATIONS: tuple[Degradation, ...] = (RAIN, RAINDROP, SHADOW, BLUR)

JOINT = ("rain+raindrop",)
"""What comes together: a picture then has one of them, or all."""

TASKS = (*(one.name for one in DEGRADATIONS), *JOINT)
"""All that can be learnt to be taken away."""

if TYPE_CHECKING:
    Task = str
else:
    Task = Literal[TASKS]
    """What a flag --task takes."""


def degradation(name: str) -> Degradation:
    """The one of that name. Raises ValueError, which lists what there is."""
    for one in DEGRADATIONS:
        if one.name == name:
            return one
    *names, last = (one.name for one in DEGRADATIONS)
    raise ValueError(
        f"clean pictures cannot be degraded for the task {name!r}; "
        f"ingest them with --task {', '.join(names)} or {last}"
    )


def degradations(task: str) -> tuple[Degradation, ...]:
    """Those of a (joint) task, in the order in which light meets them. Raises ValueError."""
    parts = [degradation(part) for part in split_task(task)]
    return tuple(one for one in DEGRADATIONS if one in parts)


def split_task(task: str) -> frozenset[str]:
    """What a model takes away; the task of a joint model is written rain+raindrop."""
    return frozenset(task.split("+"))


def is_sized(task: str) -> bool:
    """Whether what a model of a (joint) task takes away is known by its size."""
    return any(one.sized for one in DEGRADATIONS if one.name in split_task(task))


def measures(task: str) -> frozenset[Measure]:
    """What models of a (joint) task are judged on; what is not known here is judged on RGB."""
    known = {one.name: one.judged_on for one in DEGRADATIONS}
    return frozenset(known.get(part, "RGB") for part in split_task(task))
