"""Pixels to a GPU and back while it works on others. On a CPU nothing is made ahead, and nothing is late."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Item = TypeVar("Item")


def tensor_of(pixels: NDArray[Any], device: torch.device) -> Tensor:
    """Pictures [k, H, W, C], uint8 or uint16, as float32 [k, C, H, W] in their own levels, on the device."""
    return _levels(_on_host(pixels, device).to(device, non_blocking=True))


def uploaded(batches: Iterable[NDArray[Any]], device: torch.device) -> Iterator[Tensor]:
    """Each batch as `tensor_of` gives it. The one after that which a GPU is given is under way."""
    if not _has_streams(device):
        yield from (tensor_of(batch, device) for batch in batches)
        return
    side = torch.cuda.Stream(device)
    for sent in _one_behind(_Sent.of(batch, side, device) for batch in batches):
        yield _levels(sent.arrived())


def brought_back(
    results: Iterable[tuple[Tensor, ...]], device: torch.device
) -> Iterator[tuple[NDArray[Any], ...]]:
    """The tensors of each result, on the host. A GPU's are waited for when the next result is under way."""
    if not _has_streams(device):
        yield from (tuple(tensor.cpu().numpy() for tensor in tensors) for tensors in results)
        return
    for returning in _one_behind(_Returning.of(tensors) for tensors in results):
        yield returning.arrays()


def _has_streams(device: torch.device) -> bool:
    return device.type == "cuda"


def _one_behind(items: Iterable[Item]) -> Iterator[Item]:
    """Each item when the one after it has been made."""
    made: deque[Item] = deque()
    for item in items:
        made.append(item)
        if len(made) > 1:
            yield made.popleft()
    yield from made


def _levels(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2).float()


def _on_host(pixels: NDArray[Any], device: torch.device) -> Tensor:
    """A copy that a device can take as it is: torch has few operations on uint16, which is wider then."""
    dtype = torch.uint8 if pixels.dtype == np.uint8 else torch.int32
    host = _pinned(pixels.shape, dtype) if _has_streams(device) else torch.empty(pixels.shape, dtype=dtype)
    host.numpy()[...] = pixels
    return host


def _pinned(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory that a GPU reaches by itself. What is let go while a copy runs is used again only after it."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


class _Sent(NamedTuple):
    pixels: Tensor
    there: torch.cuda.Event

    @staticmethod
    def of(batch: NDArray[Any], side: torch.cuda.Stream, device: torch.device) -> _Sent:
        host = _on_host(batch, device)
        with torch.cuda.stream(side):
            return _Sent(host.to(device, non_blocking=True), side.record_event())

    def arrived(self) -> Tensor:
        """The pixels, for what is launched from here on; their memory stays until that has run."""
        stream = torch.cuda.current_stream(self.pixels.device)
        stream.wait_event(self.there)
        self.pixels.record_stream(stream)
        return self.pixels


class _Returning(NamedTuple):
    host: list[Tensor]
    there: torch.cuda.Event

    @staticmethod
    def of(tensors: tuple[Tensor, ...]) -> _Returning:
        host = [_pinned(tuple(tensor.shape), tensor.dtype) for tensor in tensors]
        for to, tensor in zip(host, tensors, strict=True):
            to.copy_(tensor, non_blocking=True)
        return _Returning(host, torch.cuda.current_stream(tensors[0].device).record_event())

    def arrays(self) -> tuple[NDArray[Any], ...]:
        self.there.synchronize()
        return tuple(tensor.numpy() for tensor in self.host)
