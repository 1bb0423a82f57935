"""Work that kills its process, by a crash or for want of memory, or that never ends: tried twice, then left
alone; and work that is not begun because the run is to stop.

No exception is seen of a dead process, and Ray starts what it had in hand anew, for ever. An exception that
leaves a stream ends it: one that nobody foresaw is told as that of the work in hand.
"""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import ray
from ray.exceptions import RayError

from pipelines.services import faults

CPUS_A_REGISTER = 32
DEATHS = 2
"""Processes that a piece of work may take with it."""


class QuarantinedError(RuntimeError):
    """A piece of work was in hand each time when so many processes died, or takes too long."""


class GivenUpError(RuntimeError):
    """A piece of work was not begun: the run that it belongs to is to stop."""


def unforeseen(error: Exception) -> str:
    """What is told of an error that nothing here knows. Those of the cluster are raised again: they are no
    item's."""
    if isinstance(error, RayError):
        raise error
    return faults.unforeseen(error)


Left = dict[str, tuple[int, bool]]
"""Work of one owner that was taken up and not laid down: how often, and whether it took too long."""


class _Register:
    """What is in hand; what was taken up and never laid down is so at the cost of a process."""

    def __init__(self) -> None:
        self.taken: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.slow: set[tuple[str, str]] = set()
        self.stopped: set[str] = set()

    def left(self, owner: str, stream: str) -> tuple[Left, bool]:
        """What an earlier process of this owner had in hand, and whether its stream is to stop."""
        known: Mapping[str, int] = self.taken.get(owner, {})
        return {work: (n, (owner, work) in self.slow) for work, n in known.items()}, stream in self.stopped

    def take_up(self, owner: str, work: str, done: str | None, stream: str) -> bool:
        """After what is done; whether the stream is to stop."""
        if done is not None:
            del self.taken[owner][done]
        self.taken[owner][work] += 1
        return stream in self.stopped

    def too_slow(self, owner: str, work: str) -> None:
        self.slow.add((owner, work))

    def stop(self, stream: str) -> None:
        self.stopped.add(stream)


@dataclass
class _Owner:
    """The actor or task that this process is, as far as one stream goes."""

    id: str
    left: Left
    stopped: bool
    answer: Any = None
    done: str | None = None
    """What was laid down last; it is told with what is taken up next."""


_owners: dict[str, _Owner] = {}
"""By stream: a process asks once what earlier ones had in hand, and waits for no answer after that."""


@lru_cache(maxsize=1)
def _registers(node: str) -> list[Any]:
    """Those of all streams that a process starts: each is a process too.

    One writes down some hundred pieces a second, so a large cluster has several, by owner.
    """
    count = 1 + int(ray.cluster_resources().get("CPU", 1)) // CPUS_A_REGISTER
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Register)
    return [actor.remote() for _ in range(count)]


class Quarantine:
    """Its copies in the workers share what they know. A Ray cluster must be there."""

    def __init__(self, seconds: float | None = None) -> None:
        """`seconds` is the longest that a piece of work may take; its process is ended then."""
        # The node's id is another in every cluster that this process may have started.
        self._registers = _registers(ray.get_runtime_context().get_node_id())
        self._stream, self.seconds = uuid.uuid4().hex, seconds

    def give_up(self) -> None:
        """From now on no work of this stream is begun."""
        ray.get([register.stop.remote(self._stream) for register in self._registers])

    @contextmanager
    def hold(self, work: str, *, to_the_end: bool = False) -> Iterator[None]:
        """Around doing a piece of work. Before it is done, raises QuarantinedError where it was deadly or
        took too long, and GivenUpError where its stream is to stop (but for what is wanted `to_the_end`).

        It is taken down as in hand without waiting: what kills within a millisecond may be tried more often.
        `work` names it within its actor or else its task: these keep their ids when Ray starts them anew
        (a task of an actor does not), and others may have work of the same name in hand.
        """
        owner = self._owner()
        deaths, slow = owner.left.get(work, (0, False))
        if slow:
            raise QuarantinedError(f"it takes longer than {self.seconds:g} s")
        if deaths >= DEATHS:
            raise QuarantinedError(
                f"its process died {DEATHS} times while this was in hand: it crashes, or needs more memory "
                "than there is"
            )
        if owner.stopped and not to_the_end:
            raise GivenUpError("the run was to stop before it was begun")
        owner.answer = self._register_of(owner.id).take_up.remote(owner.id, work, owner.done, self._stream)
        try:
            with self._watched(owner.id, work):
                yield
        finally:
            owner.done = work

    def _register_of(self, owner: str) -> Any:
        return self._registers[zlib.crc32(owner.encode()) % len(self._registers)]

    def _owner(self) -> _Owner:
        context = ray.get_runtime_context()
        worker = context.get_actor_id() or context.get_task_id() or "driver"
        id = f"{worker} of {self._stream}"  # one process may hold work of the same name in several streams
        known = _owners.get(self._stream)
        if known is None or known.id != id:
            known = _Owner(id, *ray.get(self._register_of(id).left.remote(id, self._stream)))
            _owners[self._stream] = known
        elif known.answer is not None:
            known.stopped = ray.get(known.answer)  # it was asked for with the work before
        return known

    @contextmanager
    def _watched(self, owner: str, work: str) -> Iterator[None]:
        if self.seconds is None:
            yield
            return
        watch = _watch()
        watch.begin(self.seconds, partial(self._end_process, owner, work))
        try:
            yield
        finally:
            watch.end()

    def _end_process(self, owner: str, work: str) -> None:
        """What hangs in a decoder cannot be interrupted otherwise."""
        ray.get(self._register_of(owner).too_slow.remote(owner, work))
        os._exit(1)


class _Watch:
    """A thread that does something where work takes too long; one for all work of a process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._until: float | None = None
        self._then: Callable[[], object] = bool
        self._looks = math.inf
        threading.Thread(target=self._run, daemon=True).start()

    def begin(self, seconds: float, then: Callable[[], object]) -> None:
        with self._changed:
            self._until, self._then = time.monotonic() + seconds, then
            if self._until < self._looks:  # else it looks again before this is over
                self._changed.notify()

    def end(self) -> None:
        self._until = None

    def _run(self) -> None:
        while True:
            with self._changed:
                until = self._until
                self._looks = math.inf if until is None else until
                self._changed.wait(None if until is None else max(0.0, until - time.monotonic()))
                late = self._until is not None and time.monotonic() >= self._until
                then = self._then
            if late:
                then()


@cache
def _watch() -> _Watch:
    return _Watch()
