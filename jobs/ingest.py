"""Pack a folder of pairs, or of clean pictures to be degraded, into Parquet shards on any storage.

python jobs/ingest.py --source s3://data/Rain13K --destination s3://shards/rain13k
"""

from __future__ import annotations

from jobs.entry import run
from pipelines.ingest import IngestConfig, ingest


def main(config: IngestConfig) -> None:
    """Ingest, and say what became of every picture."""
    print(ingest(config).summary())


if __name__ == "__main__":
    run(main, IngestConfig, __doc__ or "")
