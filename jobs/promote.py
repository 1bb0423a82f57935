"""Make a registered version the champion, if it is better than the present one on the named sets.

    python jobs/promote.py --candidate models:/spair-rain/7 --data s3://shards/rain100l \\
        --clean s3://data/photos
    python jobs/promote.py --rollback models:/spair-rain

Exits with 0 where the alias was moved and with 3 where it was not.
"""

from __future__ import annotations

from jobs.entry import NOTHING_TO_DO, run
from pipelines.judging.promotion import PromoteConfig, promote


def main(config: PromoteConfig) -> int:
    """Decide, and say why."""
    decision, judged = promote(config)
    if judged:
        print(judged)
    if config.rollback:
        verdict = "rolled back" if decision.promote else "not rolled back"
    else:
        verdict = "promoted" if decision.promote else "not promoted"
    print(f"{verdict}: {decision.reason}")
    return 0 if decision.promote else NOTHING_TO_DO


if __name__ == "__main__":
    run(main, PromoteConfig, __doc__ or "")
