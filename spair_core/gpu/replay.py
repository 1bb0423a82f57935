"""Launches of fixed shapes, recorded once as a CUDA graph and then replayed as one."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

MOST_GRAPHS = 4
"""That a function keeps: each holds the memory of one call."""

Function = Callable[[Tensor], tuple[Tensor, ...]]


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    given: Tensor
    results: tuple[Tensor, ...]


class Replayed:
    """Calls a function of one tensor; on a GPU, in inference mode, by replaying what it launched before.

    What the function launches must follow from the tensor's shape alone, and it may wait for nothing. An
    input's shape, layout and type are recorded when they come for the second time (a single picture is not
    worth it). Results are the caller's own: no later call writes to them. `weights` are what else the
    function reads; changed in place they are read anew, and elsewhere in memory they are recorded anew.
    """

    def __init__(
        self, function: Function, weights: Callable[[], Iterable[Tensor]], most: int = MOST_GRAPHS
    ) -> None:
        self.function, self.weights, self.most = function, weights, most
        self._known: OrderedDict[Hashable, _Recording | None] = OrderedDict()
        self._failed = False
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, in this process or another, begins without graphs."""
        return Replayed, (self.function, self.weights, self.most)

    def __call__(self, given: Tensor) -> tuple[Tensor, ...]:
        """What the function gives, bit for bit."""
        if self._failed or not _may_replay(given):
            return self.function(given)
        with self._lock:  # what a graph reads and writes is one call's until its results are copied
            recording = self._recording(given)
            if recording is None:
                return self.function(given)
            recording.given.copy_(given)
            recording.graph.replay()
            return tuple(result.clone() for result in recording.results)

    def _recording(self, given: Tensor) -> _Recording | None:
        """None where the input's like has not come before, or could not be recorded."""
        key = self._key(given)
        known, found = key in self._known, self._known.get(key)
        if known and found is None:
            found = self._recorded(given)
        self._known[key] = found
        self._known.move_to_end(key)
        if len(self._known) > self.most:
            torch.cuda.synchronize()  # it may be running
            self._known.popitem(last=False)
        return found

    def _key(self, given: Tensor) -> Hashable:
        """What a graph holds for: it reads and writes at addresses, in the order of one stream."""
        places = tuple((weight.data_ptr(), weight.dtype) for weight in self.weights())
        stream = torch.cuda.current_stream(given.device).cuda_stream
        return given.shape, given.stride(), given.dtype, given.device, stream, places

    def _recorded(self, given: Tensor) -> _Recording | None:
        held, graph = given.clone(), torch.cuda.CUDAGraph()
        try:
            # Other threads may use the GPU meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                results = self.function(held)
        except RuntimeError as error:
            self._failed = True
            logging.getLogger("spair.gpu").warning("launches are not replayed: %s", error)
            return None
        return _Recording(graph, held, results)


def _may_replay(given: Tensor) -> bool:
    return (
        _on_gpu(given)
        and torch.is_inference_mode_enabled()
        and not torch.is_autocast_enabled(given.device.type)
        and not torch.cuda.is_current_stream_capturing()
    )


def _on_gpu(given: Tensor) -> bool:
    return given.is_cuda
