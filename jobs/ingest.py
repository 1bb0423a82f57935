"""Pack a set in its owners' layout, or clean pictures to be degraded, into Parquet shards on any storage.

    python jobs/ingest.py --layout gopro --source s3://data/GoPro --dry-run
    python jobs/ingest.py --layout gopro --source s3://data/GoPro --split train --destination s3://shards/gopro

Every picture is decoded before it is packed; what cannot be is named with its reason, and the rest goes on.
"""

from __future__ import annotations

from jobs.entry import run
from pipelines.data.ingest import IngestConfig, find, ingest


def main(config: IngestConfig) -> None:
    """Ingest, and say what became of every picture; or only say what is there."""
    if config.dry_run:
        print(f"{find(config).summary()}\ndry run: nothing was written")
    else:
        print(ingest(config).summary())


if __name__ == "__main__":
    run(main, IngestConfig, __doc__ or "")
