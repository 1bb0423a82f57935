"""Work that kills its process, by a crash or for want of memory: tried twice, then left alone.

No exception is seen of it, and Ray starts what a dead process had in hand anew, for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import ray

DEATHS = 2
"""Processes that a piece of work may take with it."""


class QuarantinedError(RuntimeError):
    """A piece of work was in hand each time when so many processes died."""


class _Register:
    """What is in hand; what was taken up and never laid down is so at the cost of a process."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()

    def take_up(self, work: str) -> int:
        """How often it was taken up before and not laid down."""
        self.taken[work] += 1
        return self.taken[work] - 1

    def lay_down(self, work: str) -> None:
        del self.taken[work]


@lru_cache(maxsize=1)
def _register(node: str) -> Any:
    """One for all streams that a process starts (work has a name of its own in each): it is a process too."""
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Register).remote()


class Quarantine:
    """Its copies in the workers share what they know. A Ray cluster must be there."""

    def __init__(self) -> None:
        # The node's id is another in every cluster that this process may have started.
        self._register = _register(ray.get_runtime_context().get_node_id())

    @contextmanager
    def hold(self, work: str) -> Iterator[None]:
        """Around doing a piece of work. Raises QuarantinedError, before it is done, where it was deadly.

        `work` names it within its actor or else its task: these keep their ids when Ray starts them anew
        (a task of an actor does not), and others may have work of the same name in hand.
        """
        context = ray.get_runtime_context()
        work = f"{context.get_actor_id() or context.get_task_id()} {work}"
        if ray.get(self._register.take_up.remote(work)) >= DEATHS:
            raise QuarantinedError(
                f"its process died {DEATHS} times while this was in hand: it crashes, or needs more memory "
                "than there is"
            )
        try:
            yield
        finally:
            self._register.lay_down.remote(work)
