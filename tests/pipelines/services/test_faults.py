"""Signals of this very process: handlers that libraries set are put back, and their exits are told apart."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress

import pytest

from pipelines.services import faults


@pytest.mark.parametrize(
    ("code", "number"), [(15, signal.SIGTERM), (0, signal.SIGINT), (None, signal.SIGINT)]
)
def test_a_library_that_exits_on_a_signal_is_seen_through(code, number):
    def exits(*_):
        sys.exit(code)

    def library():
        for each in faults.ENDING:
            signal.signal(each, exits)
        os.kill(os.getpid(), number)

    before = [signal.getsignal(each) for each in faults.ENDING]
    with pytest.raises(faults.Stopped) as stopped, faults.own_signals():
        library()
    assert stopped.value.number == number
    assert [signal.getsignal(each) for each in faults.ENDING] == before


def test_handlers_are_as_before_where_no_signal_came():
    before = [signal.getsignal(each) for each in faults.ENDING]
    with faults.stopping() as received:
        assert [signal.getsignal(each) for each in faults.ENDING] != before
    assert [signal.getsignal(each) for each in faults.ENDING] == before
    assert received == []


def test_a_signal_passes_what_catches_errors():
    def work():
        with suppress(Exception):
            os.kill(os.getpid(), signal.SIGTERM)

    before = {each: signal.getsignal(each) for each in faults.ENDING}
    try:
        with pytest.raises(faults.Stopped), faults.stopping() as received:
            work()
        assert received == [signal.SIGTERM]
    finally:  # a second one would have ended the tests
        for each, handler in before.items():
            signal.signal(each, handler)


class Dropped:
    """Asks this process to end when it is let go, where nothing that is raised is heard."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # the handler runs within


def as_ray_does(*_):
    sys.exit(signal.SIGTERM)


@pytest.mark.parametrize("handler", [None, as_ray_does])
def test_a_signal_is_heard_that_came_where_nothing_can_be_raised(handler):
    def work():
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
        thing = Dropped()
        del thing
        time.sleep(20)

    before = {each: signal.getsignal(each) for each in (*faults.ENDING, signal.SIGALRM)}
    hook = sys.unraisablehook
    try:
        with pytest.raises(faults.Stopped) as stopped, faults.stopping() as received:
            work()
        assert stopped.value.number == signal.SIGTERM
        assert received == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGALRM) == before[signal.SIGALRM]
        assert sys.unraisablehook == hook
    finally:
        for each, was in before.items():
            signal.signal(each, was)


def test_other_errors_that_nobody_hears_are_told_as_ever(capsys, monkeypatch):
    class Broken:
        def __del__(self):
            raise OSError("as ever")

    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    with faults.stopping():
        thing = Broken()
        del thing
    assert "OSError: as ever" in capsys.readouterr().err


def test_elsewhere_than_in_the_main_thread_nothing_is_set():
    seen = []

    def elsewhere():
        with faults.stopping(), faults.own_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
