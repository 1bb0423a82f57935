"""The morning after: what came of a night's restoration, as one page that is read from disk.

The manifest is read once and in parts, so memory does not grow with the night; of the bucket only a few
pictures are fetched. Beside the page's numbers in `DESTINATION/_spair/report.json` lie those of other nights,
which it is held against.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

from pipelines.reports import history, night_page
from pipelines.reports.exhibits import exhibits
from pipelines.reports.tally import Tally
from pipelines.restoration.manifest import Manifest
from pipelines.services import locations, storage, tracking
from pipelines.services.locations import FOLDER
from pipelines.services.storage import NothingStoredError, StorageError


@dataclass(frozen=True)
class ReportConfig:
    """Which restoration to report on."""

    destination: str
    """Where a restoration wrote."""
    out: str | None = None
    """The page; by default DESTINATION/_spair/report.html."""
    earlier: tuple[str, ...] = ()
    """Destinations of earlier nights to hold this one against. By default, where a folder of the destination
    is a date (s3://dashcams-dry/2026-11-20), the last 30 of its earlier neighbours."""
    cost_per_hour: float | None = None
    """What an hour of one actor costs, in any currency; without it the page says nothing of costs."""
    pictures: int = 12
    """Restored items whose pictures are shown: the most and the least degraded, and some by chance."""
    rows: int = 2000
    """Items that are listed at most: lost ones first, then some of each verdict."""
    seed: int = 0
    """Of what is left to chance; the same gives the same items."""
    experiment: str | None = None
    """MLflow experiment of the restoration, whose last run gets the page too; by default none."""

    def __post_init__(self) -> None:
        if self.pictures < 0 or self.rows < 0:
            raise ValueError("pictures and rows are numbers from 0 up")
        if self.cost_per_hour is not None and not 0 <= self.cost_per_hour < float("inf"):
            raise ValueError(f"cost_per_hour is an amount, not {self.cost_per_hour}")

    @property
    def page(self) -> str:
        """Where the page goes."""
        return self.out or locations.join(self.destination, FOLDER, "report.html")


def report(config: ReportConfig) -> str:
    """Make the page, and say where it was written.

    Raises NothingStoredError where nothing was restored to the destination, StorageError, TrackingError.
    """
    tally = Tally.of(
        Manifest(config.destination), rows=config.rows, pictures=-(-config.pictures // 3), seed=config.seed
    )
    if not tally.total:
        raise NothingStoredError(f"{config.destination}: no restoration has written a manifest there")
    night = history.Night.of(config.destination, tally)
    earlier = list(history.earlier(config.destination, config.earlier))
    shown = list(exhibits(tally.looked_at()[: config.pictures]))
    page = night_page.page(night, tally, shown, earlier, config.cost_per_hour).encode()
    storage.write_bytes(config.page, page)
    _keep_numbers(config, night)
    run = tracking.latest_run(config.experiment, config.destination) if config.experiment else None
    if run is not None:
        run.log_bytes("report.html", page)
    return config.page


def _keep_numbers(config: ReportConfig, night: history.Night) -> None:
    """For later nights. Who writes the page elsewhere may have no right to write here."""
    data = json.dumps(asdict(night), indent=1).encode()
    try:
        storage.write_bytes(history.numbers(config.destination), data)
    except StorageError as error:
        if config.out is None:
            raise
        print(f"the night's numbers are not kept for later reports: {error}", file=sys.stderr)
