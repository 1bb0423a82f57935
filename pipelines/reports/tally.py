"""What a night comes to: its verdicts counted and sampled in one pass, in bounded memory."""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Generic, TypeVar

from pipelines.restoration.manifest import DONE, FAILED, REJECTED, RESTORED, VERDICTS, Verdict

LOST = (REJECTED, FAILED)
MOST_GROUPS = 1000
"""Kinds of reasons, of notes and folders that are told apart; of the others only the number is known."""
MOST_BINS = 4096
"""Bars of the timeline that are held."""
SAMPLES = 3
"""Names that are given of a group."""
SECONDS = (1, 5, 15, 60, 300, 900, 3600, 10800, 43200, 86400, 604800)
"""What a bar may stand for; each is a multiple of the one before."""

Item = TypeVar("Item")


class Lot(Generic[Item]):
    """Of all that is offered, the `size` whose places are lowest. Places differ."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._held: list[tuple[tuple[float, ...], int, Item]] = []
        self._offered = 0

    def offer(self, item: Item, *place: float) -> None:
        """One more."""
        self._offered += 1
        entry = (tuple(-part for part in place), self._offered, item)
        if len(self._held) < self.size:
            heapq.heappush(self._held, entry)
        elif self._held and entry > self._held[0]:
            heapq.heapreplace(self._held, entry)

    def __iter__(self) -> Iterator[Item]:
        return (item for *_, item in sorted(self._held, reverse=True))

    def __len__(self) -> int:
        return len(self._held)


def chance(key: str, seed: int) -> int:
    """A place that has nothing to do with the name and is the same for the same seed."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest())


@dataclass
class Group:
    """Sentences that differ in numbers and names only: how often, with the first of them and some items."""

    first: str
    count: int = 0
    alike: bool = True
    keys: list[str] = field(default_factory=list)


class Groups:
    """Sentences of verdicts, put together where only numbers and names tell them apart."""

    def __init__(self) -> None:
        self.groups: dict[tuple[str, str], Group] = {}
        self.others = 0

    def add(self, sentence: str, item: Verdict) -> None:
        """One that is said of an item."""
        name = (item.verdict, general(sentence, item))
        if name not in self.groups and len(self.groups) >= MOST_GROUPS:
            self.others += 1
            return
        group = self.groups.setdefault(name, Group(sentence))
        group.count += 1
        group.alike = group.alike and sentence == group.first
        if len(group.keys) < SAMPLES:
            group.keys.append(item.key)

    def commonest(self) -> list[tuple[str, str, Group]]:
        """(verdict, sentence, group), the largest groups first; a sentence that is always alike is whole."""
        named = [
            (verdict, group.first if group.alike else sentence, group)
            for (verdict, sentence), group in self.groups.items()
        ]
        return sorted(named, key=lambda one: (-one[2].count, one[:2]))


_MEMBER = re.compile(r"^[^:\n]*\.\w{1,5}: ")
_VARYING = re.compile(r"\b0x[0-9a-fA-F]+\b|\b(?=\w*\d)[0-9a-fA-F]{12,}\b|\d+(?:[.,:]\d+)*")


def general(sentence: str, item: Verdict) -> str:
    """The sentence without the item's name, a member's name before it, and numbers: `…` and `#` instead."""
    for name in (item.source_uri, item.key, item.key.rpartition("/")[2]):
        if "." in name or "/" in name:
            sentence = sentence.replace(name, "…")
    return _VARYING.sub("#", _MEMBER.sub("…: ", sentence))[:400]


@dataclass
class Bin:
    """What ended within a bar's time: items by verdict, and frames of those that are done."""

    items: Counter[str] = field(default_factory=Counter)
    frames: int = 0

    def __iadd__(self, other: Bin) -> Bin:
        self.items += other.items
        self.frames += other.frames
        return self


class Timeline:
    """How many items ended when, in bars that get wider as they get more."""

    def __init__(self) -> None:
        self.width = SECONDS[0]
        self.first = self.last = 0.0
        self.undated = 0
        self._bins: dict[int, Bin] = {}

    def add(self, item: Verdict) -> None:
        """An item, by when it ended; in seconds since 1970."""
        when = _seconds(item.finished_at)
        if when is None:
            self.undated += 1
            return
        if not self._bins:
            self.first = self.last = when
        self.first, self.last = min(self.first, when), max(self.last, when)
        held = self._bins.setdefault(int(when // self.width), Bin())
        held.items[item.verdict] += 1
        held.frames += item.frames if item.verdict in DONE else 0
        if len(self._bins) > MOST_BINS:
            self._widen()

    @property
    def seconds(self) -> float:
        """From the first verdict to the last, pauses included."""
        return self.last - self.first

    def bars(self, most: int) -> list[Bin]:
        """At most so many bars of `width` seconds, from the first verdict's to the last's, empty ones too."""
        while self.last // self.width - self.first // self.width >= most:
            self._widen()
        if not self._bins:
            return []
        numbers = range(int(self.first // self.width), int(self.last // self.width) + 1)
        return [self._bins.get(number, Bin()) for number in numbers]

    def _widen(self) -> None:
        wider = next((seconds for seconds in SECONDS if seconds > self.width), 2 * self.width)
        bins: dict[int, Bin] = {}
        for number, held in self._bins.items():
            place = bins.setdefault(number * self.width // wider, Bin())
            place += held
        self.width, self._bins = wider, bins


def _seconds(moment: str) -> float | None:
    try:
        read = datetime.fromisoformat(moment)
    except ValueError:
        return None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


@dataclass
class Tally:
    """All verdicts of a night: counts, sums, groups, a timeline, and samples that are the same every time.

    `rows` are most items of each verdict that are kept for a list, `pictures` most of each way to choose some
    to look at.
    """

    rows: int
    pictures: int
    seed: int = 0

    def __post_init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.kinds: dict[str, Counter[str]] = {}
        self.folders: dict[str, Counter[str]] = {}
        self.other_folders = 0
        self.frames = self.pixels = 0
        self.degraded = self.model_seconds = 0.0
        self.reasons, self.notes, self.timeline = Groups(), Groups(), Timeline()
        self.listed: dict[str, Lot[Verdict]] = {name: Lot(self.rows) for name in VERDICTS}
        self.most, self.least, self.some = (Lot[Verdict](size * self.pictures) for size in (1, 2, 3))

    @staticmethod
    def of(verdicts: Iterable[Verdict], *, rows: int, pictures: int, seed: int = 0) -> Tally:
        """The tally of all of them, taken as they come."""
        tally = Tally(rows, pictures, seed)
        for verdict in verdicts:
            tally.add(verdict)
        return tally

    def add(self, item: Verdict) -> None:
        """One item more."""
        place = chance(item.key, self.seed)
        self.counts[item.verdict] += 1
        self.kinds.setdefault(item.kind, Counter())[item.verdict] += 1
        self._count_folder(item)
        self.timeline.add(item)
        self.listed.setdefault(item.verdict, Lot(self.rows)).offer(item, place)
        for note in item.notes.splitlines():
            self.notes.add(note, item)
        if item.verdict in DONE:
            self._sum(item)
        else:
            self.reasons.add(item.reason, item)
        if item.verdict == RESTORED:
            self.most.offer(item, -item.degraded_share, place)
            self.least.offer(item, item.degraded_share, place)
            self.some.offer(item, place)

    @property
    def total(self) -> int:
        """All items."""
        return self.counts.total()

    @property
    def done(self) -> int:
        """Those that are at their destination."""
        return sum(self.counts[verdict] for verdict in DONE)

    @property
    def lost(self) -> int:
        """Those that could not be restored and should have been."""
        return sum(self.counts[verdict] for verdict in LOST)

    def sample(self) -> list[Verdict]:
        """At most `rows` items by name: lost ones first, up to half of the list and more where there is
        room, then as many of each other verdict as go in."""
        shares = fair({name: len(lot) for name, lot in self.listed.items()}, self.rows, first=LOST)
        chosen = [item for name, lot in self.listed.items() for item in islice(lot, shares[name])]
        return sorted(chosen, key=lambda item: (item.verdict not in LOST, item.key))

    def looked_at(self) -> list[tuple[str, Verdict]]:
        """The restored items whose pictures are shown, each once, and why."""
        ways = (("most degraded", self.most), ("least degraded", self.least), ("by chance", self.some))
        chosen: dict[str, tuple[str, Verdict]] = {}
        for why, lot in ways:
            fresh = [item for item in lot if item.key not in chosen]
            chosen |= {item.key: (why, item) for item in fresh[: self.pictures]}
        return list(chosen.values())

    def _sum(self, item: Verdict) -> None:
        self.frames += item.frames
        self.pixels += item.width * item.height * max(item.frames, 1)
        self.degraded += item.degraded_share
        self.model_seconds += item.model_seconds

    def _count_folder(self, item: Verdict) -> None:
        name = folder(item.key)
        if name not in self.folders and len(self.folders) >= MOST_GROUPS:
            self.other_folders += 1
        else:
            self.folders.setdefault(name, Counter())[item.verdict] += 1


def folder(key: str) -> str:
    """The first part of a name that has several."""
    return key.partition("/")[0] if "/" in key else ""


def fair(there: Mapping[str, int], room: int, *, first: Iterable[str] = ()) -> dict[str, int]:
    """How many of each are taken: together at most `room`, those that come `first` from half of it, and what
    some leave goes to the others."""
    early = [name for name in there if name in first]
    late = [name for name in there if name not in early]
    others = sum(there[name] for name in late)
    taken = _even({name: there[name] for name in early}, max(room // 2, room - others))
    return taken | _even({name: there[name] for name in late}, room - sum(taken.values()))


def _even(there: Mapping[str, int], room: int) -> dict[str, int]:
    taken: dict[str, int] = {}
    for name, count in sorted(there.items(), key=lambda one: one[1]):
        taken[name] = min(count, room // (len(there) - len(taken)))
        room -= taken[name]
    return taken
