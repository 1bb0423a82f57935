"""Take the rain out of one night's footage; `{night}` in a location stands for the date.

    python jobs/nightly_derain.py --source s3://dashcams/{night} --destination s3://dashcams-dry/{night}

By default it is yesterday's. Started again, it goes on where it was.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta

from jobs import restore_bulk
from jobs.entry import run
from pipelines.restoration.restore import RestoreConfig


def last_night() -> str:
    """Yesterday, ISO 8601."""
    return (date.today() - timedelta(days=1)).isoformat()


@dataclass(frozen=True)
class NightlyConfig(RestoreConfig):
    """A night's restoration."""

    night: str = field(default_factory=last_night)
    """The date that replaces {night}; by default yesterday's."""
    experiment: str = "spair-nightly-derain"
    """MLflow experiment."""

    def restoration(self) -> RestoreConfig:
        """The same with the locations of this night. Raises ValueError where `night` is no date, or
        something else than {night} stands in braces."""
        try:
            date.fromisoformat(self.night)
        except ValueError as error:
            raise ValueError(f"night is a date such as 2026-11-20, not {self.night!r}") from error
        values = {k: getattr(self, k) for k in asdict(self) if k != "night"}
        for name in ("source", "destination"):
            values[name] = values[name].replace("{night}", self.night)
            if stray := re.search(r"\{\w*\}", values[name]):
                raise ValueError(f"{name}: {stray[0]} stands for nothing; the date's place is {{night}}")
        return RestoreConfig(**values)


def main(config: NightlyConfig) -> int:
    """Restore the night's footage."""
    return restore_bulk.main(config.restoration())


if __name__ == "__main__":
    run(main, NightlyConfig, __doc__ or "")
