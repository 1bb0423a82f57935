"""One job at a destination: a lease that is kept alive, waited for, and taken over from the dead.

Each job that wants a destination puts a ticket into `_spair/lease/` and beats in it while it lives. Stores
differ in conditional writes (some ignore them silently), but a read after a write sees it everywhere, and on
that alone it rests, much like Lamport's bakery: a ticket is written, then after a pause all are read; one
that says `holds` keeps the others out, and among those that only want, the first by name comes next and says
so before it looks once more. Whether another lives is told by its beats, on one's own clock; of one on the
same machine the system knows it at once.
"""

from __future__ import annotations

import json
import os
import posixpath
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.services import locations, storage, tracking
from pipelines.services.faults import HeldError
from pipelines.services.storage import StorageError

HIDDEN = "hidden"
"""Of a process that runs, but of which the system does not say more."""


@dataclass(frozen=True)
class Pace:
    """How fast a lease is dealt with, in seconds."""

    beat: float = 5.0
    """Between two beats."""
    dead: float = 30.0
    """Without a beat for so long, a job is taken to be dead."""
    pause: float = 1.0
    """Between writing and reading; no write may take longer."""


@dataclass(frozen=True)
class Ticket:
    """What a job says of itself."""

    name: str
    holder: str
    since: str
    holds: bool = False
    beats: int = 0
    machine: str = ""
    """A running system and a space of process numbers in it; "" where the system has no name for them."""
    process: str = ""
    """Its process' number there, and when that began."""

    @property
    def ended(self) -> bool:
        """Whether its process is known to be no more, which only its own machine knows."""
        if not self.process or self.machine != _machine():
            return False
        return _process(self.process.split(" ")[0]) not in (self.process, HIDDEN)


class Lease:
    """A destination's lease, for one job."""

    def __init__(self, destination: str, pace: Pace | None = None) -> None:
        self.folder = locations.join(destination, locations.FOLDER, "lease")
        self.pace = pace or Pace()
        now = tracking.now()
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        self.ticket = Ticket(
            f"{now.replace(':', '')}-{uuid.uuid4().hex}",
            holder,
            now,
            machine=_machine(),
            process=_process(str(os.getpid())),
        )
        self.lost: str | None = None
        """Why another job may have the destination by now."""
        self._changing = threading.Lock()
        self._ended = threading.Event()
        self._seen: dict[str, tuple[int, float]] = {}

    @contextmanager
    def held(
        self, wait: float, tell: Callable[[str], None], meanwhile: Callable[[], object] = lambda: None
    ) -> Iterator[Lease]:
        """While this job has the destination, after `wait` seconds at most. Raises HeldError, StorageError.

        `tell` is given one line where another job has it, and one where a dead one's lease is taken over.
        `meanwhile` is called where nobody is seen to have it, instead of only waiting for one to show itself.
        """
        self._put()
        beating = threading.Thread(target=self._beat, daemon=True)
        beating.start()
        try:
            self._acquire(time.monotonic() + wait, tell, meanwhile)
            yield self
        finally:
            self._ended.set()
            beating.join(timeout=self.pace.beat)
            storage.delete(self._uri(self.ticket.name))

    def check(self) -> None:
        """Raises HeldError where another job has taken this one for dead, or its beats cannot be written."""
        if self.lost is not None:
            raise HeldError(self.lost)

    def _acquire(self, until: float, tell: Callable[[str], None], meanwhile: Callable[[], object]) -> None:
        told = False
        while (before := self._before(tell)) is not None or not self.ticket.holds:
            looked = time.monotonic()
            if before is None:
                self._put(holds=True)
                looked = time.monotonic()
                meanwhile()
            elif self.ticket.holds:
                self._put(holds=False)
            elif looked >= until:
                raise HeldError(
                    f"{self.folder}: {before.holder} has this destination since {before.since}; wait for it "
                    "to end, or give more of --wait-minutes"
                )
            elif not told:
                tell(f"waiting for {before.holder}, which has this destination since {before.since}")
                told = True
            time.sleep(max(0.0, looked + self.pace.pause - time.monotonic()))

    def _before(self, tell: Callable[[str], None]) -> Ticket | None:
        """Who comes before this job, among the living."""
        others = [ticket for ticket in self._tickets() if self._lives(ticket, tell)]
        holding = [ticket for ticket in others if ticket.holds]
        if self.ticket.holds:
            return next((ticket for ticket in holding if ticket.name < self.ticket.name), None)
        return next(iter(holding), None) or next(
            (ticket for ticket in others if ticket.name < self.ticket.name), None
        )

    def _lives(self, ticket: Ticket, tell: Callable[[str], None]) -> bool:
        if ticket.ended:
            tell(f"{ticket.holder} is no more: its lease is taken over")
        elif self._silent(ticket):
            tell(f"{ticket.holder} has given no sign for {self.pace.dead:.0f} s: its lease is taken over")
        else:
            return True
        storage.delete(self._uri(ticket.name))
        return False

    def _silent(self, ticket: Ticket) -> bool:
        now = time.monotonic()
        beats, when = self._seen.get(ticket.name, (-1, now))
        if ticket.beats != beats:
            self._seen[ticket.name] = (ticket.beats, now)
            return False
        return now - when >= self.pace.dead

    def _tickets(self) -> Iterator[Ticket]:
        for item in list(storage.list_objects(self.folder)):
            name, ending = posixpath.splitext(item.key)
            if name == self.ticket.name or ending != ".json":
                continue  # its own, or one that is being written
            try:
                values: dict[str, Any] = json.loads(storage.read_bytes(item.uri))
                yield Ticket(**values)
            except StorageError:
                if storage.exists(item.uri):
                    raise  # one that cannot be read may be somebody's who has the destination
            except (ValueError, TypeError):
                continue  # no ticket

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(self.pace.beat):
            try:
                if not storage.exists(self._uri(self.ticket.name)):
                    self.lost = f"{self.folder}: another job took this one for dead and has the destination"
                    return
                self._put(beats=self.ticket.beats + 1)
                last = time.monotonic()
            except StorageError as error:
                if time.monotonic() - last > self.pace.dead:
                    self.lost = f"the lease of this destination could not be kept: {error}"
                    return

    def _put(self, **changes: Any) -> None:
        with self._changing:
            self.ticket = replace(self.ticket, **changes)
            storage.write_bytes(self._uri(self.ticket.name), json.dumps(asdict(self.ticket)).encode())

    def _uri(self, name: str) -> str:
        return locations.join(self.folder, f"{name}.json")


def _machine() -> str:
    """Tells Linux systems, from one start to the next, and containers' own process numbers apart."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process(number: str) -> str:
    """A process that runs: its number, and when it began in the system's ticks; "" where there is none."""
    try:
        os.kill(int(number), 0)
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except ProcessLookupError:
        return ""
    except (OSError, ValueError):
        return HIDDEN  # another user's
    return "" if fields[0] in "ZX" else f"{number} {fields[19]}"
