"""What there is to do: the source's objects beside the manifest's verdicts, both in the order of their keys.

Both are read as they come, so that work begins with the first keys and memory holds a part of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import islice
from typing import Literal, NamedTuple

from pipelines.media import medium_of
from pipelines.restoration.manifest import DONE, FOLDER, OTHER, REJECTED, Verdict
from pipelines.services.locations import NO_PATH, NO_TEXT, is_path, is_text
from pipelines.services.storage import StoredObject


@dataclass(frozen=True)
class Selection:
    """Which items are looked at; by default all."""

    include: tuple[str, ...] = ()
    """Only names (below the source) that match one of these patterns, such as 'cam1/*' or '*.mp4'."""
    exclude: tuple[str, ...] = ()
    """No names that match one of these."""
    since: str = ""
    """Only what was written at or after this time: 2026-11-20, or 2026-11-20T06:00+01:00; UTC by default."""
    redrive: Literal["", "failed", "rejected"] = ""
    """Only what ended so before; rejected items too are tried again then."""
    limit: int | None = None
    """Look at only so many of these, the first by name."""

    def __post_init__(self) -> None:
        _ = self._begin  # what is no time is told at once
        if self.limit is not None and self.limit < 1:
            raise ValueError("limit is a number of items, at least 1")

    def takes(self, item: StoredObject, known: Verdict | None) -> bool:
        """Whether an item is looked at, were there no limit."""
        if self.redrive and (known is None or known.verdict != self.redrive):
            return False
        if self.include and not any(fnmatchcase(item.key, pattern) for pattern in self.include):
            return False
        if any(fnmatchcase(item.key, pattern) for pattern in self.exclude):
            return False
        return self._begin is None or item.modified is None or item.modified >= self._begin

    @cached_property
    def _begin(self) -> datetime | None:
        if not self.since:
            return None
        try:
            begin = datetime.fromisoformat(self.since)
        except ValueError as error:
            raise ValueError(f"since is a date or a time of ISO 8601, not {self.since!r}") from error
        return begin if begin.tzinfo else begin.replace(tzinfo=UTC)


class Planned(NamedTuple):
    """An object of the source that is looked at, its kind by its name, and the verdict on it before."""

    item: StoredObject
    kind: str
    known: Verdict | None
    settled: bool
    """Whether nothing is to be done about it,"""
    settled_digest: str
    """or, where that is not empty, about bytes with this digest: then only the store's mark is another."""
    refused: str = ""
    """Why its output cannot have its name; empty where it can."""

    @property
    def todo(self) -> bool:
        """Whether it is to be restored."""
        return not self.settled and not self.refused and self.kind != OTHER


@dataclass(frozen=True)
class Terms:
    """What the outputs of a run depend on beside their sources."""

    model_digest: str
    options: str
    in_folder: bool = False
    """Whether they go to a folder, which cannot keep every name that a bucket has."""


def plan(
    objects: Iterable[StoredObject], known: Iterator[Verdict], selection: Selection, terms: Terms
) -> Iterator[Planned]:
    """The items to look at, as they come; `objects` and `known` are sorted by key.

    What an earlier restoration keeps beside its outputs, where those are the source now, is no item of ours.
    """
    taken = (
        (item, verdict)
        for item, verdict in beside(objects, known)
        if item is not None and selection.takes(item, verdict)
    )
    for item, verdict in islice(taken, selection.limit):
        kind = None if item.key.startswith(f"{FOLDER}/") else medium_of(item.key)
        again = selection.redrive == REJECTED
        before = None if again else verdict
        refused = _refused(item, terms)
        if before is None or not before.settled_with(terms.model_digest, terms.options):
            yield Planned(item, kind.name if kind else OTHER, verdict, False, "", refused)
        else:
            same = before.source_identity == item.identity
            yield Planned(item, before.kind, verdict, same, before.source_digest, refused)


def _refused(item: StoredObject, terms: Terms) -> str:
    if not is_text(item.uri):
        return NO_TEXT
    return f"{NO_PATH}; a bucket can" if terms.in_folder and not is_path(item.key) else ""


def beside(
    objects: Iterable[StoredObject], known: Iterator[Verdict]
) -> Iterator[tuple[StoredObject | None, Verdict | None]]:
    """What is at the source beside what is known of it, by key; one of the two may be missing."""
    held = next(known, None)
    for item in objects:
        while held is not None and held.key < item.key:
            yield None, held
            held = next(known, None)
        if held is not None and held.key == item.key:
            yield item, held
            held = next(known, None)
        else:
            yield item, None
    if held is not None:
        yield None, held
    yield from ((None, verdict) for verdict in known)


@dataclass
class Forecast:
    """What a run would do."""

    items: Counter[str] = field(default_factory=Counter)
    """To restore, by kind."""
    settled: int = 0
    ignored: int = 0
    bytes: int = 0
    """Of what is to be restored."""
    seen_bytes: int = 0
    seen_seconds: float = 0.0
    """What was restored before, and how long the model took."""

    def count(self, planned: Planned) -> None:
        """One item more."""
        known = planned.known
        if known is not None and known.verdict in DONE and known.model_seconds:
            self.seen_bytes += planned.item.size
            self.seen_seconds += known.model_seconds
        if planned.settled:
            self.settled += 1
        elif not planned.todo:
            self.ignored += 1
        else:
            self.items[planned.kind] += 1
            self.bytes += planned.item.size

    def __str__(self) -> str:
        kinds = ", ".join(f"{number:,} {kind}s" for kind, number in sorted(self.items.items()))
        took = self.seen_seconds / self.seen_bytes if self.seen_bytes else None
        model = (
            f"{took * self.bytes / 3600:.2f} hours of one model, by what was restored here before"
            if took is not None
            else "how long it takes is not known before something was restored here"
        )
        return (
            f"to restore: {kinds or 'nothing'} ({self.bytes / 1e6:,.1f} MB); {self.settled:,} done before; "
            f"{self.ignored:,} that cannot be restored, by their names\n{model}"
        )
