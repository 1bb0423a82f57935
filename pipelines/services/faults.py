"""What ends a job before its work is done, by what its caller can do about it; signals are one of these."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class UnavailableError(RuntimeError):
    """A service outside does not answer; the same may work later. The message names it and the remedy."""


class NothingThereError(RuntimeError):
    """The source holds nothing to work on."""


class HeldError(RuntimeError):
    """Another job holds the destination; the message says which."""


class TooManyLostError(RuntimeError):
    """Too large a share of the items cannot be restored; the message says which and the commonest reason."""


class Stopped(KeyboardInterrupt):
    """A signal asks this process to end. It passes `except Exception`, and what cleans up is run.

    A KeyboardInterrupt, since libraries (Ray's waits among them) let just that one through.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stopping() -> Iterator[list[int]]:
    """While the block runs, SIGTERM and SIGINT raise Stopped in the main thread; a second one ends at once.

    Yields the list that the signal's number is put into: Ray makes a plain KeyboardInterrupt of what its
    waits let through. Elsewhere than in the main thread nothing is changed, as Python wants it.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise Stopped(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        if not received:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def own_sigterm() -> Iterator[None]:
    """What the block sets in place of our handler of SIGTERM is put back after it.

    Raises Stopped where the block ends by SystemExit, which is how `ray.init` answers that signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as ended:
        raise Stopped(signal.SIGTERM) from ended
    finally:
        signal.signal(signal.SIGTERM, before)
