"""Look at what a model does with a picture: a page with the figures of the paper's supplement.

    python jobs/analyse.py --picture rainy.png --clean clean.png --destination s3://reports/rainy
    python jobs/analyse.py --data data/test/Rain100L --limit 10 --destination reports

Pages, their numbers as JSON and their maps as NPZ are written to the destination and logged to MLflow.
"""

from __future__ import annotations

from jobs.entry import run
from pipelines.reports.report import AnalyseConfig, report, summary


def main(config: AnalyseConfig) -> None:
    """Analyse, and say where the pages are."""
    print(summary(report(config)))


if __name__ == "__main__":
    run(main, AnalyseConfig, __doc__ or "")
