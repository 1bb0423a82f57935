"""A stand-in for torch's CUDA graphs on a CPU: what is recorded runs again, on the very tensors it ran on."""

import itertools
from types import SimpleNamespace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spair_core.gpu import replay


def tensors_in(values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def places(values):
    return {tensor.untyped_storage().data_ptr() for tensor in tensors_in(values)}


class Graph(TorchDispatchMode):
    """Operations in their order, with what they read; what they made is written anew by `replay`."""

    def __init__(self):
        super().__init__()
        self.steps, self.replays = [], 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        made = operation(*args, **kwargs)
        if operation._schema.is_mutable or not places(made) <= places((args, kwargs)):  # else it is a view
            self.steps.append((operation, args, kwargs, made))
        return made

    def replay(self):
        self.replays += 1
        for operation, args, kwargs, made in self.steps:
            again = operation(*args, **kwargs)
            if not operation._schema.is_mutable:
                for old, new in zip(tensors_in(made), tensors_in(again), strict=True):
                    old.copy_(new)


class Graphs:
    """In place of what `replay` uses of `torch.cuda`: `made` are the graphs that were recorded, in order."""

    def __init__(self, monkeypatch):
        self.made, self.stream, self.broken = [], 0, False
        monkeypatch.setattr(replay, "_on_gpu", lambda given: True)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
        stream = lambda device: SimpleNamespace(cuda_stream=self.stream)  # noqa: E731
        monkeypatch.setattr(torch.cuda, "current_stream", stream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "graph", self.recording)

    def recording(self, graph, capture_error_mode):
        if self.broken:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.made.append(graph)
        return graph

    @property
    def replays(self):
        return [graph.replays for graph in self.made]


SEEDS = itertools.count()


def noise(*shape):
    """Other values at every call, channels last."""
    generator = torch.Generator().manual_seed(next(SEEDS))
    return torch.rand(shape, generator=generator).contiguous(memory_format=torch.channels_last)
