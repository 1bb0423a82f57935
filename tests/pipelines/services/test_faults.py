"""Signals of this very process: handlers that libraries set are put back, and their exits are told apart."""

import os
import signal
import sys
import threading
from contextlib import suppress

import pytest

from pipelines.services import faults


@pytest.mark.parametrize(
    ("code", "number"), [(15, signal.SIGTERM), (0, signal.SIGINT), (None, signal.SIGINT)]
)
def test_a_library_that_exits_on_a_signal_is_seen_through(code, number):
    def as_ray_does(*_):
        sys.exit(code)

    def library():
        for each in faults.ENDING:
            signal.signal(each, as_ray_does)
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


def test_elsewhere_than_in_the_main_thread_nothing_is_set():
    seen = []

    def elsewhere():
        with faults.stopping(), faults.own_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
