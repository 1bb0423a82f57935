import resource
import sys

import pytest
import torch

from spair_core import memory


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_what_was_freed_is_used_again():
    assert memory.keep_freed()
    faults = [_written(megabytes=48) for _ in range(24)]
    assert min(faults) < (48 << 20) // resource.getpagesize() / 10
    assert sum(fault > 1000 for fault in faults) < 12  # until the heap has a place for it


def _written(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(megabytes << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_elsewhere_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed()
