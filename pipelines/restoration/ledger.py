"""The ledger of a restoration: what came of every item, journalled as it comes in."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray

from pipelines.media import medium
from pipelines.restoration import manifest
from pipelines.restoration.manifest import (
    DONE,
    FAILED,
    IGNORED,
    PASSED,
    REJECTED,
    RESTORED,
    Manifest,
    Verdict,
)
from pipelines.services import storage, tracking

FLUSH_SECONDS = 5.0

Join = Callable[[dict[str, Any], int, bool], ray.ObjectRef]
"""Item, number of its parts, whether it passed -> the output's digest, or why it could not be joined, and
what of it could not be kept."""


@dataclass
class Summary:
    """What became of the items of a run."""

    verdicts: list[Verdict] = field(default_factory=list)
    already: int = 0
    manifest: str = ""
    seconds: float = 0.0

    def count(self, verdict: str) -> int:
        """Items of this run with a verdict."""
        return Counter(item.verdict for item in self.verdicts)[verdict]

    @property
    def rejected_share(self) -> float:
        """Of the pictures and clips of this run."""
        looked_at = len(self.verdicts) - self.count(IGNORED)
        return self.count(REJECTED) / looked_at if looked_at else 0.0

    def metrics(self) -> dict[str, float]:
        """For MLflow."""
        done = [item for item in self.verdicts if item.verdict in DONE]
        pixels = sum(item.width * item.height * max(item.frames, 1) for item in done)
        return {
            **{verdict: float(self.count(verdict)) for verdict in manifest.VERDICTS},
            "already_done": float(self.already),
            "frames": float(sum(item.frames for item in done)),
            "megapixels": pixels / 1e6,
            "degraded_share": float(np.mean([item.degraded_share for item in done])) if done else 0.0,
            "model_seconds": sum(item.model_seconds for item in done),
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        lines = [
            f"{item.verdict}: {item.key}: {item.reason}" for item in self.verdicts if item.verdict not in DONE
        ]
        lines += [
            f"{item.verdict}: {item.key}: {note}"
            for item in self.verdicts
            for note in item.notes.splitlines()
        ]
        counts = ", ".join(f"{self.count(verdict)} {verdict}" for verdict in manifest.VERDICTS)
        lines.append(f"{counts}; {self.already} done before; {self.seconds:.1f} s")
        lines.append(f"manifest: {self.manifest}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Terms:
    """What the verdicts of a run share, and how many panels it keeps."""

    destination: str
    options: str
    model_digest: str
    panels: int


@dataclass
class _Open:
    """An item of which parts have come in."""

    parts: dict[int, dict[str, Any]] = field(default_factory=dict)
    total: int | None = None


class Ledger:
    """On the driver: turns finished pieces into verdicts, journals them, and shows progress."""

    def __init__(
        self,
        terms: Terms,
        todo: list[dict[str, Any]],
        book: Manifest,
        summary: Summary,
        run: tracking.Run,
        join: Join,
    ) -> None:
        self.terms, self.book, self.summary, self.run, self.join = terms, book, summary, run, join
        self.items = {item["key"]: item for item in todo}
        self.open: dict[str, _Open] = {}
        self.joins: dict[ray.ObjectRef, tuple[str, dict[str, Any]]] = {}
        self.settled: set[str] = set()
        self.panels = 0
        self.started = self.flushed = time.monotonic()

    def take(self, row: dict[str, Any]) -> None:
        """One finished piece."""
        key = row["key"]
        if row["panel_png"] and self.panels < self.terms.panels:
            self._keep_panel(key, row["panel_png"])
        if key not in self.settled:
            if row["error"] or medium(row["kind"]).join is None:
                self._settle(key, row)
            else:
                self._take_part(key, row)
        self._poll(timeout=0)
        self._tick()

    def finish(self) -> None:
        """Wait for the last items to be joined; whatever has no verdict by then gets one."""
        while self.joins:
            self._poll(timeout=2)
            self._tick()
        for key, item in self.items.items():
            if key not in self.settled:
                self._settle(
                    key, {**_NOTHING, "kind": item["kind"], "verdict": FAILED, "error": "its work was lost"}
                )
        self._tick(now=True)

    def _take_part(self, key: str, row: dict[str, Any]) -> None:
        item = self.open.setdefault(key, _Open())
        item.parts[int(row["part"])] = row
        if row["last"]:
            item.total = int(row["part"]) + 1
        if item.total == len(item.parts):
            del self.open[key]
            totals = _totals(list(item.parts.values()))
            whole = {**self.items[key], "kind": totals["kind"]}
            ref = self.join(whole, item.total, totals["verdict"] == PASSED)
            self.joins[ref] = (key, totals)

    def _poll(self, timeout: float) -> None:
        if not self.joins:
            return
        ready, _ = ray.wait(list(self.joins), num_returns=len(self.joins), timeout=timeout)
        for ref in ready:
            key, totals = self.joins.pop(ref)
            try:
                digest, error, notes = ray.get(ref)
            except ray.exceptions.RayError as failure:
                digest, error, notes = "", f"could not be joined: {failure}", ""
            digest = totals["digest"] if totals["verdict"] == PASSED else digest
            verdict = FAILED if error else totals["verdict"]
            said = {"output_digest": digest, "error": error, "verdict": verdict}
            self._settle(key, {**totals, **said, "lost": _noted(totals["lost"], notes)})

    def _settle(self, key: str, row: dict[str, Any]) -> None:
        item = self.items[key]
        self.settled.add(key)
        self.open.pop(key, None)
        done = row["verdict"] in DONE
        verdict = Verdict(
            key=key,
            kind=row["kind"],
            verdict=row["verdict"],
            reason=row["error"],
            source_uri=item["uri"],
            source_identity=item["identity"],
            source_digest=row["digest"],
            output_uri=storage.join(self.terms.destination, key) if done else "",
            output_digest=row["output_digest"],
            width=int(row["width"]),
            height=int(row["height"]),
            frames=int(row["frames"]),
            degraded_share=float(row["degraded_share"]),
            model_seconds=float(row["model_seconds"]),
            model_digest=self.terms.model_digest,
            options=self.terms.options,
            notes=_noted(row["notes"], row["lost"] if row["verdict"] == RESTORED else ""),
            finished_at=tracking.now(),
        )
        self.book.add(verdict)
        self.summary.verdicts.append(verdict)

    def _keep_panel(self, key: str, png: bytes) -> None:
        self.panels += 1
        name = f"{key.replace('/', '_')}.png"
        storage.write_bytes(storage.join(self.terms.destination, manifest.FOLDER, "panels", name), png)
        self.run.log_bytes(f"panels/{name}", png)

    def _tick(self, *, now: bool = False) -> None:
        if not now and time.monotonic() - self.flushed < FLUSH_SECONDS:
            return
        self.book.flush()
        self.flushed = time.monotonic()
        done, rate = len(self.settled), len(self.settled) / (self.flushed - self.started)
        left = f", {(len(self.items) - done) / rate:.0f} s left" if rate and done < len(self.items) else ""
        counts = ", ".join(f"{self.summary.count(v)} {v}" for v in (RESTORED, PASSED, REJECTED, FAILED))
        print(f"{done}/{len(self.items)} items: {counts}; {rate:.2f}/s{left}", file=sys.stderr, flush=True)


_NOTHING = {
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


def _totals(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """An item's row from those of its parts."""
    frames = sum(int(part["frames"]) for part in parts)
    last = max(parts, key=lambda part: int(part["part"]))
    found = any(part["degraded_share"] for part in parts)
    return {
        **last,
        **{name: _noted(*(part[name] for part in parts)) for name in ("notes", "lost")},
        "verdict": RESTORED if found else PASSED,
        "frames": frames,
        "model_seconds": sum(float(part["model_seconds"]) for part in parts),
        "degraded_share": sum(float(part["degraded_share"]) * int(part["frames"]) for part in parts) / frames,
    }


def _noted(*notes: str) -> str:
    """Each sentence once."""
    return "\n".join(dict.fromkeys(line for note in notes for line in note.splitlines()))
