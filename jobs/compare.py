"""Hold a challenger against the champion on footage without truth, such as last night's.

    python jobs/compare.py --champion models:/spair-rain@champion --challenger models:/spair-rain/7 \\
        --data s3://dashcams/2026-11-20
"""

from __future__ import annotations

from jobs.entry import run
from pipelines.judging.comparison import CompareConfig, compare


def main(config: CompareConfig) -> None:
    """Compare, and print what was found; pictures of where the two differ most are in MLflow."""
    print(compare(config))


if __name__ == "__main__":
    run(main, CompareConfig, __doc__ or "")
