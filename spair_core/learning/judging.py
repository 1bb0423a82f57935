"""What weights make of pictures and drives that they have not learnt from, in the same weather for all.

    python -m spair_core.learning.judging held-out.zip footage-light run/weights.safetensors
    python -m spair_core.learning.judging held-out.zip run/weights.safetensors --task blur

Photographs and frames of drives are degraded in one way after another, and shown clean; pairs come as they
are. Each of these sets is a row: PSNR before and after (on Y, of shadows and blur on RGB; equal ones count
as 60 dB), the least gain of a picture, and the mean F1 of the masks. What is drawn depends on the pack and on
--seed alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path
from typing import NamedTuple, TypeVar, get_args

import cv2
import numpy as np

from spair_core import inference, weights
from spair_core.degradations.catalogue import TASKS, degradations, measures, split_task
from spair_core.degradations.crops import Example
from spair_core.degradations.degradation import Degradation, Over, Pixels
from spair_core.degradations.rain import HEAVY, LIGHT, SPARSE, RainConfig, add_rain, rain_over
from spair_core.degradations.raindrops import (
    BEADS,
    FLAT,
    ON_WINDSCREENS,
    RaindropConfig,
    add_raindrops,
    drops_over,
)
from spair_core.footage import Reach, Window, windows
from spair_core.inference import Precision, chosen, type_of
from spair_core.learning.pack import Clip, Pack, PackError, read_pack
from spair_core.learning.pool import PoolConfig
from spair_core.learning.single import add_flags, told
from spair_core.masks import THRESHOLD, mask_from_pair
from spair_core.metrics import mask_scores, psnr, psnr_y
from spair_core.network import Spair, lowered
from spair_core.weights import WeightsError

EQUAL = 60.0
"""dB that equal pictures count as."""

Draw = Callable[[Pixels, np.random.Generator], Pixels]
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class JudgingConfig:
    """How much of a pack is looked at."""

    photographs: int = 24
    """Most photographs, evenly spaced in the pack."""
    frames: int = 4
    """Frames of each drive, evenly spaced in time."""
    seed: int = 0
    """Of what is drawn."""


class Score(NamedTuple):
    """Of one picture: dB of PSNR before and after, and F1 of the mask (1 where nothing is, nor is found)."""

    before: float
    after: float
    f1: float


def _rain(config: RainConfig) -> Draw:
    return lambda clean, rng: add_rain(clean, rng, replace(config, dry=0.0))[0]


def _drops(config: RaindropConfig) -> Draw:
    return lambda clean, rng: add_raindrops(clean, rng, replace(config, dry=0.0))[0]


STILLS: Mapping[str, Mapping[str, Draw]] = {
    "rain": {
        "streaks": _rain(RainConfig()),
        "light streaks": _rain(RainConfig((LIGHT,), (1.0,))),
        "heavy streaks": _rain(RainConfig((HEAVY,), (1.0,))),
        "sparse rain": _rain(RainConfig((SPARSE,), (1.0,))),
    },
    "raindrop": {
        "drops": _drops(RaindropConfig(misted=0.0)),
        "flat drops": _drops(RaindropConfig((FLAT,), (1.0,), misted=0.0)),
        "drops on misted glass": _drops(RaindropConfig(misted=1.0)),
    },
}
"""By task, what photographs are seen in; of other tasks, what is learnt from."""

DRIVES: Mapping[str, Mapping[str, tuple[Over, ...]]] = {
    "rain": {
        "streaks": (partial(rain_over, config=RainConfig()),),
        "sparse rain": (partial(rain_over, config=RainConfig((SPARSE,), (1.0,))),),
    },
    "raindrop": {
        "small drops": (
            partial(drops_over, config=replace(ON_WINDSCREENS, families=(BEADS,), weights=(1,))),
        ),
        "drops": (drops_over,),
    },
    "rain+raindrop": {"streaks and drops": (partial(rain_over, config=RainConfig()), drops_over)},
}
"""By task, what drives are seen in, beside dry."""


def sets(pack: Pack, task: str, config: JudgingConfig) -> Iterator[tuple[str, list[Example]]]:
    """Of a pack what models of a task are judged on, by name: degraded beside clean, frames with those around
    them. They are drawn as they are asked for."""
    photos = pack.photographs[:: ceil(len(pack.photographs) / config.photographs) or 1]
    for name, draw in (_of_photographs(task) if photos else {}).items():
        wet = (draw(photo, _random(config, 0, k)) for k, photo in enumerate(photos))
        yield f"photographs, {name}", list(map(Example, wet, photos))
    weather: dict[str, tuple[Over, ...]] = {"dry": (), **_all_of(DRIVES, task)}
    for number, clip in enumerate(pack.clips, 1):
        dry = list(_windows(clip, config.frames))
        for name, overs in weather.items():
            frames = [_in_weather(one, overs, _random(config, number, k)) for k, one in enumerate(dry)]
            yield f"drive {number}, {name}", frames
    for part in sorted(split_task(task)):
        if pairs := [pair for of, pair in pack.pairs if of == part]:
            yield f"pairs, {part}", pairs


def _of_photographs(task: str) -> dict[str, Draw]:
    drawn = _all_of(STILLS, task)
    for part in degradations(task):
        if part.name not in STILLS:
            drawn[part.name] = _usual(part)
    return {"clean": lambda clean, _: clean, **drawn}


def _usual(part: Degradation) -> Draw:
    return lambda clean, rng: part.draw(clean, rng, 0.0, THRESHOLD)[0]


def _all_of(table: Mapping[str, Mapping[str, Entry]], task: str) -> dict[str, Entry]:
    """What a table has for a task, and for the parts of a joint one."""
    wanted = split_task(task)
    return {name: one for of, row in table.items() if split_task(of) <= wanted for name, one in row.items()}


def _random(config: JudgingConfig, source: int, number: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, source, number])


def _windows(clip: Clip, count: int) -> Iterator[Window]:
    """Frames of a clip, evenly spaced, each with those around it that restoring it looks at."""
    reach, length = Reach(), len(clip.frames)
    around = ceil((reach.near + reach.far + reach.beat) * clip.rate) + 1
    for place in sorted({int((k + 0.5) * length / count) for k in range(count)}):
        first = max(0, place - around)
        some = clip.frames[first : place + around + 1]
        timed = ((frame, (first + k) / clip.rate) for k, frame in enumerate(some))
        yield next(islice(windows(timed, 1, reach), place - first, None))


def _in_weather(window: Window, overs: Sequence[Over], rng: np.random.Generator) -> Example:
    frames = list(window.pixels)
    for over in overs:
        frames = over(frames, rng)
    here = window.own[0]
    return Example(frames[here], window.pixels[here], window=replace(window, pixels=np.stack(frames)))


def score(model: Spair, example: Example, measure: Callable[[Pixels, Pixels], float]) -> Score:
    """What a model makes of a picture, or of a frame with those around it."""
    assert example.degraded is not None
    restored = inference.restore_window(model, example.shown)
    true = mask_from_pair(example.degraded, example.clean, THRESHOLD)
    precision, recall = mask_scores(restored.mask[0], true)
    return Score(
        min(EQUAL, measure(example.degraded, example.clean)),
        min(EQUAL, measure(restored.pixels[0], example.clean)),
        2 * precision * recall / max(precision + recall, 1e-9),
    )


def row(name: str, scores: Sequence[Sequence[Score]]) -> str:
    """A line of the table in Markdown; `scores` are those of each model on a set."""
    cells = [f"{np.mean([one.before for one in scores[0]]):.2f}"]
    for of in scores:
        least = min(one.after - one.before for one in of)
        cells += [f"{np.mean([one.after for one in of]):.2f}", f"{least:+.2f}"]
        cells += [f"{np.mean([one.f1 for one in of]):.2f}"]
    return f"| {name} | {len(scores[0])} | {' | '.join(cells)} |"


def head(names: Sequence[str]) -> str:
    """The table's first two lines."""
    columns = ["set", "pictures", "input", *(cell for name in names for cell in (name, "least gain", "F1"))]
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the flags and print the table, row by row."""
    parser = argparse.ArgumentParser(
        prog="python -m spair_core.learning.judging",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pack", type=Path, help="a file of python -m spair_core.learning.pack")
    parser.add_argument("weights", nargs="+", help="names of shipped weights, or model files")
    parser.add_argument("--task", choices=TASKS, default=PoolConfig.task, help="what is to be taken away")
    parser.add_argument("--precision", choices=get_args(Precision), default="auto", help="of the networks")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    add_flags(parser, JudgingConfig)
    flags = parser.parse_args(arguments)
    config = told(JudgingConfig, flags)
    if config.photographs < 1 or config.frames < 1:
        parser.error("--photographs and --frames are at least 1")
    cv2.setNumThreads(1)
    kind = type_of(chosen(flags.precision, flags.device))
    try:
        models = [
            lowered(weights.load(weights.named(name))[0], kind).to(flags.device) for name in flags.weights
        ]
        pack = read_pack(flags.pack)
    except (PackError, WeightsError, OSError) as error:
        sys.exit(f"{error}")
    measure = psnr_y if measures(flags.task) == {"Y"} else psnr
    print(head(flags.weights), flush=True)
    for name, examples in sets(pack, flags.task, config):
        print(row(name, [[score(model, one, measure) for one in examples] for model in models]), flush=True)


if __name__ == "__main__":
    main()
