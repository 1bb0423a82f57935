"""The morning after: what came of a night's restoration, as one page.

    python jobs/report.py --destination s3://dashcams-dry/2026-11-20
    python jobs/report.py --destination s3://dashcams-dry/2026-11-20 --out night.html --cost-per-hour 0.12

Restorations make this page themselves when they end. It needs no cluster.
"""

from __future__ import annotations

from jobs.entry import run
from pipelines.reports.night import ReportConfig, report


def main(config: ReportConfig) -> None:
    """Make the page, and say where it is."""
    print(report(config))


if __name__ == "__main__":
    run(main, ReportConfig, __doc__ or "")
