"""Nights beside one another: each keeps its numbers in `DESTINATION/_spair/report.json` for later ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from pipelines.reports.tally import LOST, Tally
from pipelines.restoration.manifest import DONE, VERDICTS, Manifest
from pipelines.services import locations, storage
from pipelines.services.locations import FOLDER
from pipelines.services.storage import StorageError

NIGHTS = 30
"""Earlier nights that are looked for at most."""


@dataclass(frozen=True)
class Night:
    """The numbers of a night, as later ones are held against them; `trouble` says why they are not known.

    `counts` are items by verdict, `degraded_share` the mean over those that are done, `seconds` the time from
    the first verdict to the last.
    """

    destination: str
    counts: dict[str, int] = field(default_factory=dict)
    frames: int | None = None
    megapixels: float | None = None
    degraded_share: float | None = None
    model_seconds: float | None = None
    seconds: float | None = None
    first: str = ""
    last: str = ""
    trouble: str = ""

    @staticmethod
    def of(destination: str, tally: Tally) -> Night:
        """The numbers of a tally."""
        line = tally.timeline
        ends = (moment(line.first), moment(line.last)) if tally.total > line.undated else ("", "")
        return Night(
            destination,
            {name: tally.counts[name] for name in VERDICTS},
            tally.frames,
            tally.pixels / 1e6,
            tally.degraded / tally.done if tally.done else None,
            tally.model_seconds,
            line.seconds,
            *ends,
        )

    @staticmethod
    def read(destination: str, values: Mapping[str, Any]) -> Night:
        """Those that were written earlier. Raises TypeError, ValueError or KeyError where they are not."""
        counts = {str(name): int(count) for name, count in values["counts"].items()}
        names = ("frames", "megapixels", "degraded_share", "model_seconds", "seconds")
        numbers = {name: None if values.get(name) is None else float(values[name]) for name in names}
        if not all(0 <= number < float("inf") for number in (*counts.values(), *numbers.values()) if number):
            raise ValueError("a number that cannot be")
        frames = None if numbers["frames"] is None else int(numbers["frames"])
        return Night(destination, counts, **{**numbers, "frames": frames})  # type: ignore[arg-type]

    @property
    def date(self) -> str:
        """The last folder of its destination that is a date; empty where none is."""
        parts = self.destination.split("/")
        place = dated(parts)
        return "" if place is None else parts[place]

    @property
    def lost_share(self) -> float | None:
        """Rejected and failed items, of those that were not ignored."""
        looked_at = sum(self.counts.get(name, 0) for name in (*DONE, *LOST))
        return sum(self.counts.get(name, 0) for name in LOST) / looked_at if looked_at else None


def earlier(destination: str, named: Iterable[str] = ()) -> Iterator[Night]:
    """The nights that were restored to the named places or, where none is named, to a destination's
    neighbours. Of one without numbers, what the manifest's index says."""
    try:
        found = list(named) or neighbours(destination)
    except StorageError as error:  # such as one right for this place alone
        yield Night(destination, trouble=f"its neighbours cannot be listed: {error}")
        return
    for destination in found:
        try:
            yield _night(destination)
        except StorageError as error:
            yield Night(destination, trouble=str(error))


def numbers(destination: str) -> str:
    """Where a night's numbers lie."""
    return locations.join(destination, FOLDER, "report.json")


def _night(destination: str) -> Night:
    kept = numbers(destination)
    if not storage.exists(kept):
        counts = Manifest(destination).counts()
        return Night(destination, dict(counts), trouble="" if counts else "no restoration has written there")
    try:
        return Night.read(destination, json.loads(storage.read_bytes(kept)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StorageError(f"{kept}: is damaged ({error}); make that night's report again") from error


def neighbours(destination: str) -> Sequence[str]:
    """Destinations that differ in an earlier date only, the oldest first, NIGHTS at most."""
    parts = destination.rstrip("/").split("/")
    place = dated(parts)
    parent = "/".join(parts[:place])
    if place is None or parent.endswith(":/") or (place and not parent):
        return []  # a bucket, or right below the root
    names = [name for name in storage.folders_in(parent or ".") if dated([name]) == 0 and name < parts[place]]
    return ["/".join([*parts[:place], name, *parts[place + 1 :]]) for name in names[-NIGHTS:]]


def dated(parts: Sequence[str]) -> int | None:
    """The place of the last of these that is a date."""
    return next((place for place in reversed(range(len(parts))) if _is_date(parts[place])), None)


def _is_date(name: str) -> bool:
    try:
        return date.fromisoformat(name).isoformat() == name
    except ValueError:
        return False


def moment(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
