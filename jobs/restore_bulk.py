"""Restore every picture and clip under a prefix, to another prefix, under the same names.

    python jobs/restore_bulk.py --source s3://footage/raw --destination s3://footage/restored

Started again, it goes on where it was and does nothing twice.
"""

from __future__ import annotations

import sys

from jobs.entry import run
from pipelines.restoration.restore import RestoreConfig, restore


def main(config: RestoreConfig) -> int:
    """Restore; 1 where more items were rejected than `max_rejected_share` or some failed."""
    summary = restore(config)
    print(summary)
    if summary.rejected_share > config.max_rejected_share:
        print(
            f"error: {summary.rejected_share:.0%} of the items were rejected (limit "
            f"{config.max_rejected_share:.0%}): is {config.source} what you meant?",
            file=sys.stderr,
        )
        return 1
    failed = summary.count("failed")
    if failed:
        print(f"error: {failed} items failed; start the job again to retry them", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    run(main, RestoreConfig, __doc__ or "")
