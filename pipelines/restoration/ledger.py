"""The ledger of a restoration: what came of every item, journalled as it comes in."""

from __future__ import annotations

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.util.metrics import Counter as Counted

from pipelines.media import medium
from pipelines.restoration import manifest
from pipelines.restoration.manifest import (
    DONE,
    FAILED,
    IGNORED,
    PASSED,
    REJECTED,
    RESTORED,
    VERDICTS,
    Manifest,
    Verdict,
)
from pipelines.services import locations, storage, tracking
from pipelines.services.faults import TooManyLostError

FLUSH_SECONDS = 5.0
TOLD = 100
"""Most items whose reasons a summary tells; the manifest has all."""
ENOUGH = 100
"""Items after which a run may be stopped for the share of those that could not be restored."""

Join = Callable[[dict[str, Any], int, bool], ray.ObjectRef]
"""Item, number of its parts, whether it passed -> the output's digest, or why it could not be joined, and
what of it could not be kept."""


@dataclass
class Summary:
    """What became of the items of a run."""

    counts: Counter[str] = field(default_factory=Counter)
    """Items of this run, by verdict."""
    already: int = 0
    told: list[str] = field(default_factory=list)
    """A line for each item that was not restored, and for each note; the first of them."""
    untold: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Of rejected and failed items; the commonest."""
    frames: int = 0
    pixels: int = 0
    degraded: float = 0.0
    model_seconds: float = 0.0
    manifest: str = ""
    seconds: float = 0.0
    pruned: int = 0

    def count(self, verdict: str) -> int:
        """Items of this run with a verdict."""
        return self.counts[verdict]

    @property
    def looked_at(self) -> int:
        """Items of this run that could be restored by their names."""
        return self.counts.total() - self.counts[IGNORED]

    @property
    def lost_share(self) -> float:
        """Of these, the rejected and the failed."""
        return (self.counts[REJECTED] + self.counts[FAILED]) / self.looked_at if self.looked_at else 0.0

    def too_many_lost(self, limit: float) -> bool:
        """Whether more than that share is, in all; of a few that came to many done before nothing is told."""
        return self.lost_share > limit and (self.looked_at >= ENOUGH or not self.already)

    def take(self, item: Verdict) -> None:
        """One item more."""
        self.counts[item.verdict] += 1
        if item.verdict in DONE:
            self.frames += item.frames
            self.pixels += item.width * item.height * max(item.frames, 1)
            self.degraded += item.degraded_share
            self.model_seconds += item.model_seconds
        elif item.verdict != IGNORED and (item.reason in self.reasons or len(self.reasons) < TOLD):
            self.reasons[item.reason] += 1
        lines = [item.reason] if item.verdict not in DONE else []
        for line in lines + item.notes.splitlines():
            if len(self.told) < TOLD:
                self.told.append(f"{item.verdict}: {item.key}: {line}")
            else:
                self.untold += 1

    def metrics(self) -> dict[str, float]:
        """For MLflow."""
        done = sum(self.counts[verdict] for verdict in DONE)
        return {
            **{verdict: float(self.counts[verdict]) for verdict in VERDICTS},
            "already_done": float(self.already),
            "frames": float(self.frames),
            "megapixels": self.pixels / 1e6,
            "degraded_share": self.degraded / done if done else 0.0,
            "model_seconds": self.model_seconds,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        lines = list(self.told)
        if self.untold:
            lines.append(f"... and {self.untold} more lines like these; the manifest has them all")
        counts = ", ".join(f"{self.counts[verdict]} {verdict}" for verdict in VERDICTS)
        pruned = f"; {self.pruned} pruned" if self.pruned else ""
        lines.append(f"{counts}; {self.already} done before{pruned}; {self.seconds:.1f} s")
        lines.append(f"manifest: {self.manifest}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Accounts:
    """What the verdicts of a run share, how many panels it keeps, and which share of lost items stops it."""

    destination: str
    options: str
    model_digest: str
    panels: int
    most_lost: float


@dataclass
class _Open:
    """An item of which parts have come in: which, and what they come to."""

    parts: set[int] = field(default_factory=set)
    total: int | None = None
    row: dict[str, Any] = field(default_factory=dict)

    def add(self, row: dict[str, Any]) -> None:
        number, frames = int(row["part"]), int(row["frames"])
        if number in self.parts:
            return
        self.parts.add(number)
        if row["last"]:
            self.total = number + 1
        known = self.row or _NOTHING
        for name in ("notes", "lost"):
            row[name] = _noted(known[name], row[name])
        self.row = {
            **row,
            "digest": row["digest"] or known["digest"],
            "frames": known["frames"] + frames,
            "model_seconds": known["model_seconds"] + row["model_seconds"],
            "degraded_share": known["degraded_share"] + row["degraded_share"] * frames,
        }

    def whole(self) -> dict[str, Any]:
        """The item's row, of all its parts."""
        found = self.row["degraded_share"]
        verdict = RESTORED if found or medium(self.row["kind"]).grows else PASSED
        frames = max(self.row["frames"], 1)
        return {**self.row, "verdict": verdict, "degraded_share": found / frames}


class Ledger:
    """On the driver: turns finished pieces into verdicts, journals them, and shows progress."""

    def __init__(self, accounts: Accounts, book: Manifest, summary: Summary, join: Join) -> None:
        self.accounts, self.book, self.summary, self.join = accounts, book, summary, join
        self.items: dict[str, dict[str, Any]] = {}
        self.open: dict[str, _Open] = {}
        self.joins: dict[ray.ObjectRef, tuple[str, dict[str, Any]]] = {}
        self.panels: list[tuple[str, str, bytes]] = []
        self.begun = self.settled = self.frames = 0
        self.stopping = False
        self.first, self.flushed = 0.0, time.monotonic()
        self.counter = Counted("spair_items_total", "Items of restorations, by verdict.", ("verdict",))
        self.frame_counter = Counted("spair_frames_total", "Pictures and frames restored or passed.")

    def begin(self, items: Sequence[dict[str, Any]]) -> None:
        """The items that are taken up now: `key`, `uri`, `identity`, `kind` and verdict `known` of each."""
        self.items |= {item["key"]: item for item in items}
        self.begun += len(items)

    def take(self, row: dict[str, Any]) -> None:
        """One finished piece."""
        key = row["key"]
        self.first = self.first or time.monotonic()
        self.frames += int(row["frames"])
        if row["panel_png"]:
            self._keep_panel(key, row["panel_png"])
        if key in self.items:
            if row["error"] or row["verdict"] == PASSED or medium(row["kind"]).join is None:
                self._settle(key, row)
            else:
                self._take_part(key, row)
        self._poll(timeout=0)
        self._tick()

    def finish(self, *, given_up: float | None = None) -> None:
        """Wait for the last items to be joined. Whatever has no verdict by then gets one; where the work was
        given up, the wait is of so many seconds at most, and the rest stays for the next run."""
        until = None if given_up is None else time.monotonic() + given_up
        while self.joins and (until is None or time.monotonic() < until):
            self._poll(timeout=2)
            self._tick()
        for key, item in [] if given_up is not None else list(self.items.items()):
            lost = {"kind": item["kind"], "verdict": FAILED, "error": "its work was lost"}
            self._settle(key, {**_NOTHING, **lost})
        self._tick(now=True)

    def keep_panels(self) -> Iterator[tuple[str, bytes]]:
        """Write the panels beside the manifest; their names and PNGs."""
        for _, key, png in self.panels:
            name = f"{locations.as_file_name(key)}.png"
            folder = locations.join(self.accounts.destination, manifest.FOLDER, "panels")
            storage.write_bytes(locations.join(folder, name), png)
            yield name, png

    def confirm(self, key: str) -> None:
        """An item whose bytes were settled before, under another mark of the store's."""
        item = self.items.pop(key)
        self.settled += 1
        self.summary.already += 1
        self.book.add(replace(item["known"], source_identity=item["identity"], source_uri=item["uri"]))

    def _settle(self, key: str, row: dict[str, Any]) -> None:
        """An item's verdict, by its row."""
        item = self.items.pop(key)
        self.open.pop(key, None)
        self.settled += 1
        done = row["verdict"] in DONE
        self.enter(
            Verdict(
                key=key,
                kind=row["kind"],
                verdict=row["verdict"],
                reason=row["error"],
                source_uri=item["uri"],
                source_identity=item["identity"],
                source_digest=row["digest"],
                output_uri=locations.join(self.accounts.destination, key) if done else "",
                output_digest=row["output_digest"],
                width=int(row["width"]),
                height=int(row["height"]),
                frames=int(row["frames"]),
                degraded_share=float(row["degraded_share"]),
                model_seconds=float(row["model_seconds"]),
                model_digest=self.accounts.model_digest,
                options=self.accounts.options,
                notes=_noted(row["notes"], row["lost"] if row["verdict"] == RESTORED else ""),
                finished_at=tracking.now(),
            )
        )

    def _tick(self, *, now: bool = False) -> None:
        """Journal and tell how far it is, every few seconds. Raises TooManyLostError."""
        if not now and time.monotonic() - self.flushed < FLUSH_SECONDS:
            return
        self.book.flush()
        self.flushed = time.monotonic()
        print(self._progress(), file=sys.stderr, flush=True)
        self._check_lost()

    def _progress(self) -> str:
        seconds = self.flushed - self.first if self.first else 0.0
        if seconds < FLUSH_SECONDS / 2:  # too early to tell
            return f"{self.settled}/{self.begun} items"
        rate, frames = self.settled / seconds, self.frames / seconds  # of clips that are half done too
        todo = self.begun - self.settled
        left = f", {todo / rate:.0f} s left of these" if rate and todo else ""
        counts = ", ".join(f"{self.summary.count(v)} {v}" for v in (RESTORED, PASSED, REJECTED, FAILED))
        parts = sum(item.row["frames"] for item in self.open.values())
        left = f", {len(self.joins)} being joined{left}" if self.joins else left
        left = f", {parts} frames of {len(self.open)} unfinished{left}" if parts else left
        return f"{self.settled}/{self.begun} items: {counts}; {rate:.2f}/s, {frames:.2f} frames/s{left}"

    def _check_lost(self) -> None:
        looked_at, share = self.summary.looked_at, self.summary.lost_share
        if looked_at < ENOUGH or share <= self.accounts.most_lost or self.stopping:
            return
        self.stopping = True  # once: what is in hand is still to be taken
        (reason, times), *_ = self.summary.reasons.most_common(1)
        raise TooManyLostError(
            f"{share:.0%} of {looked_at} items could not be restored (limit "
            f"{self.accounts.most_lost:.0%}), {times} of them for this reason: {reason}; what is done is "
            "kept. Is the source what you meant? --max-lost-share allows more"
        )

    def enter(self, verdict: Verdict) -> None:
        """Take a verdict down, and count it."""
        self.book.add(verdict)
        self.summary.take(verdict)
        self.counter.inc(1, {"verdict": verdict.verdict})
        if verdict.verdict in DONE and verdict.frames:
            self.frame_counter.inc(verdict.frames)

    def _take_part(self, key: str, row: dict[str, Any]) -> None:
        item = self.open.setdefault(key, _Open())
        item.add(row)
        if item.total == len(item.parts):
            del self.open[key]
            whole = item.whole()
            named = {
                **{name: self.items[key][name] for name in ("key", "uri", "size")},
                "kind": whole["kind"],
            }
            self.joins[self.join(named, item.total, whole["verdict"] == PASSED)] = (key, whole)

    def _poll(self, timeout: float) -> None:
        if not self.joins:
            return
        ready, _ = ray.wait(list(self.joins), num_returns=len(self.joins), timeout=timeout)
        for ref in ready:
            key, whole = self.joins.pop(ref)
            try:
                digest, error, notes = ray.get(ref)
            except ray.exceptions.RayError as failure:
                digest, error, notes = "", f"could not be joined: {failure}", ""
            digest = whole["digest"] if whole["verdict"] == PASSED else digest
            verdict = FAILED if error else whole["verdict"]
            said = {"output_digest": digest, "error": error, "verdict": verdict}
            self._settle(key, {**whole, **said, "lost": _noted(whole["lost"], notes)})

    def _keep_panel(self, key: str, png: bytes) -> None:
        self.panels.append((by_chance(key), key, png))
        self.panels = sorted(self.panels)[: self.accounts.panels]


def by_chance(key: str) -> str:
    """By which items come in an order that has nothing to do with their names, and is always the same."""
    return hashlib.sha256(key.encode()).hexdigest()


_NOTHING: dict[str, Any] = {
    "digest": "",
    "notes": "",
    "lost": "",
    "output_digest": "",
    "width": 0,
    "height": 0,
    "frames": 0,
    "degraded_share": 0.0,
    "model_seconds": 0.0,
}


def _noted(*notes: str) -> str:
    """Each sentence once."""
    return "\n".join(dict.fromkeys(line for note in notes for line in note.splitlines()))
