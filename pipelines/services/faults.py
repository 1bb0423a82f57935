"""What ends a job before its work is done, by what its caller can do about it; signals are one of these."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT)
"""The signals that ask a process to end."""
AGAIN_SECONDS = 0.1
"""After which it is said again where it could not be heard."""


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


def unforeseen(error: Exception) -> str:
    """What is told of an error that nothing here knows, most likely a fault of this software: its kind, its
    words, and the place, for who mends it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"unforeseen {type(error).__name__}: {error}{place}; please report it, with the file"


@contextmanager
def stopping() -> Iterator[list[int]]:
    """While the block runs, SIGTERM and SIGINT raise Stopped in the main thread; a second one ends at once.

    Where a signal comes while a destructor runs, or what surrounds a fork, Python drops what is raised: it is
    raised again a moment later. Yields the list that the signal's number is put into: Ray makes a plain
    KeyboardInterrupt of what its waits let through. Elsewhere than in the main thread nothing is changed, as
    Python wants it.
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

    def unheard(what: sys.UnraisableHookArgs) -> None:
        number = _asked_by(what.exc_value)
        if number is None:
            tell(what)
            return
        received[:] = [number]
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)

    before = {number: signal.getsignal(number) for number in ENDING}
    for number in before:
        signal.signal(number, stop)
    tell, sys.unraisablehook = sys.unraisablehook, unheard
    alarm = signal.signal(signal.SIGALRM, lambda *_: stop(received.pop(), None))
    try:
        yield received
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        sys.unraisablehook = tell
        if not received:
            for number, handler in before.items():
                signal.signal(number, handler)


def _asked_by(error: BaseException | None) -> int | None:
    """The signal by which an error came, ours or that of Ray while it starts."""
    if isinstance(error, Stopped):
        return error.number
    return signal.SIGTERM if isinstance(error, SystemExit) and error.code == signal.SIGTERM else None


@contextmanager
def own_signals() -> Iterator[None]:
    """What the block sets in place of our handlers of SIGTERM and SIGINT is put back after it.

    Raises Stopped where the block ends by SystemExit: so `ray.init` answers SIGTERM (with its number), and
    Ray Train's `fit` SIGINT (with 0, as if it were done).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    except SystemExit as end:
        raise Stopped(signal.SIGTERM if end.code == signal.SIGTERM else signal.SIGINT) from end
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
