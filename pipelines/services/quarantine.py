"""Work that kills its process, by a crash or for want of memory, or that never ends: tried twice, then left
alone; and work that is not begun because the run is to stop.

No exception is seen of a dead process, and Ray starts what it had in hand anew, for ever.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import ray

DEATHS = 2
"""Processes that a piece of work may take with it."""


class QuarantinedError(RuntimeError):
    """A piece of work was in hand each time when so many processes died, or takes too long."""


class GivenUpError(RuntimeError):
    """A piece of work was not begun: the run that it belongs to is to stop."""


class _Register:
    """What is in hand; what was taken up and never laid down is so at the cost of a process."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self.slow: set[str] = set()
        self.stopped: set[str] = set()

    def take_up(self, work: str, stream: str) -> tuple[int, bool, bool]:
        """How often it was taken up before and not laid down, whether it took too long then, and whether its
        stream is to stop."""
        self.taken[work] += 1
        return self.taken[work] - 1, work in self.slow, stream in self.stopped

    def lay_down(self, work: str) -> None:
        del self.taken[work]

    def too_slow(self, work: str) -> None:
        self.slow.add(work)

    def stop(self, stream: str) -> None:
        self.stopped.add(stream)


@lru_cache(maxsize=1)
def _register(node: str) -> Any:
    """One for all streams that a process starts (work has a name of its own in each): it is a process too."""
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Register).remote()


class Quarantine:
    """Its copies in the workers share what they know. A Ray cluster must be there."""

    def __init__(self, seconds: float | None = None) -> None:
        """`seconds` is the longest that a piece of work may take; its process is ended then."""
        # The node's id is another in every cluster that this process may have started.
        self._register = _register(ray.get_runtime_context().get_node_id())
        self._stream, self.seconds = uuid.uuid4().hex, seconds

    def give_up(self) -> None:
        """From now on no work of this stream is begun."""
        ray.get(self._register.stop.remote(self._stream))

    @contextmanager
    def hold(self, work: str, *, to_the_end: bool = False) -> Iterator[None]:
        """Around doing a piece of work. Before it is done, raises QuarantinedError where it was deadly or
        took too long, and GivenUpError where its stream is to stop (but for what is wanted `to_the_end`).

        `work` names it within its actor or else its task: these keep their ids when Ray starts them anew
        (a task of an actor does not), and others may have work of the same name in hand.
        """
        context = ray.get_runtime_context()
        work = f"{context.get_actor_id() or context.get_task_id()} {work}"
        deaths, slow, stopped = ray.get(self._register.take_up.remote(work, self._stream))
        if slow:
            raise QuarantinedError(f"it takes longer than {self.seconds:g} s")
        if deaths >= DEATHS:
            raise QuarantinedError(
                f"its process died {DEATHS} times while this was in hand: it crashes, or needs more memory "
                "than there is"
            )
        try:
            if stopped and not to_the_end:
                raise GivenUpError("the run was to stop before it was begun")
            with self._watched(work):
                yield
        finally:
            self._register.lay_down.remote(work)

    @contextmanager
    def _watched(self, work: str) -> Iterator[None]:
        if self.seconds is None:
            yield
            return
        watch = threading.Timer(self.seconds, self._end_process, [work])
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()

    def _end_process(self, work: str) -> None:
        """What hangs in a decoder cannot be interrupted otherwise."""
        ray.get(self._register.too_slow.remote(work))
        os._exit(1)
