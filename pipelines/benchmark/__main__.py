"""Measure what the pipelines cost beside the usual ways.

    python -m pipelines.benchmark reading --shards s3://shards/rain13k --files data/Rain13K/train
    python -m pipelines.benchmark restoring --source data/night
    python -m pipelines.benchmark coding --clip data/drive.mp4
    python -m pipelines.benchmark scale --items 1000000

Ways take turns, and ratios within one run are what is told.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import tyro

from pipelines.benchmark import coding, reading, restoring, scale
from pipelines.benchmark.coding import CodingConfig
from pipelines.benchmark.reading import ReadingConfig
from pipelines.benchmark.restoring import RestoringConfig
from pipelines.benchmark.scale import ScaleConfig

Wanted = (
    Annotated[ReadingConfig, tyro.conf.subcommand("reading", description=reading.__doc__)]
    | Annotated[RestoringConfig, tyro.conf.subcommand("restoring", description=restoring.__doc__)]
    | Annotated[CodingConfig, tyro.conf.subcommand("coding", description=coding.__doc__)]
    | Annotated[ScaleConfig, tyro.conf.subcommand("scale", description=scale.__doc__)]
)


def measured(config: ReadingConfig | RestoringConfig | CodingConfig | ScaleConfig) -> list[dict[str, Any]]:
    """A row each: what, its figure, its unit, and its ratio to ours or to another way's (None where none)."""
    match config:
        case ReadingConfig():
            return reading.measure(config)
        case RestoringConfig():
            return restoring.measure(config)
        case CodingConfig():
            return coding.measure(config)
    return scale.measure(config)


def main() -> None:
    """Parse the flags, measure, and print a table."""
    config: Any = tyro.cli(Wanted, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    rows = measured(config)
    for row in rows:
        figure, ratio = (
            "not measured" if row[name] is None else f"{row[name]:.3f}" for name in ("figure", "ratio")
        )
        print(f"{row['what']:<44} {figure:>12} {row['unit']:<13} {ratio:>12}")
    if config.json:
        Path(config.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
