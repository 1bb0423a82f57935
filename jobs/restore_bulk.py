"""Restore every picture and clip under a prefix, to another prefix, under the same names.

    python jobs/restore_bulk.py --source s3://footage/raw --destination s3://footage/restored

Started again, it goes on where it was and does nothing twice. At its end it makes a page of what came of it,
DESTINATION/_spair/report.html.
"""

from __future__ import annotations

import sys

from jobs.entry import TOO_MANY_BAD, run
from pipelines.reports import night
from pipelines.reports.night import ReportConfig
from pipelines.restoration.manifest import Manifest
from pipelines.restoration.restore import RestoreConfig, forecast, orphans, restore
from pipelines.services.faults import NothingThereError, TooManyLostError


def main(config: RestoreConfig) -> int:
    """Restore; 4 where a larger share than `most_lost` was lost, or some items failed."""
    if config.dry_run:
        return _tell(config)
    try:
        summary = restore(config)
    except TooManyLostError:
        _report(config)  # which says what was lost, and why
        raise
    print(summary)
    if not summary.counts and not summary.already and not summary.pruned:
        raise NothingThereError(
            f"{config.source}: nothing of what is there was looked at; check --include, --exclude, --since, "
            "--redrive and --limit"
        )
    _report(config)
    failed = summary.count("failed")
    if summary.too_many_lost(config.most_lost):
        print(
            f"error: {summary.lost_share:.0%} of the items were rejected or failed (limit "
            f"{config.most_lost:.0%}): is {config.source} what you meant?",
            file=sys.stderr,
        )
        return TOO_MANY_BAD
    if failed:
        print(f"error: {failed} items failed; start the job again to retry them", file=sys.stderr)
    return TOO_MANY_BAD if failed else 0


def _report(config: RestoreConfig) -> None:
    """The page of what is at the destination now. Without one the work is as good."""
    try:
        print(f"report: {night.report(ReportConfig(config.destination, experiment=config.experiment))}")
    except Exception as error:  # noqa: BLE001 (whatever is wrong with a page, the restoration has ended)
        said = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"no report was made: {said}", file=sys.stderr)


def _tell(config: RestoreConfig) -> int:
    """What would be done."""
    print(forecast(config))
    for verdict in orphans(config, Manifest(config.destination)) if config.prune else ():
        print(f"to be pruned: {verdict.key}")
    return 0


if __name__ == "__main__":
    run(main, RestoreConfig, __doc__ or "")
