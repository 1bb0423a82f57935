"""Stand-ins for a GPU's streams, events and pinned memory on a CPU, which write down what they are asked."""

from contextlib import nullcontext

import torch

from spair_core.gpu import transfer


class Streams:
    """In place of those that `transfer` uses. Copies are done at once; `said` is what happened, in order."""

    def __init__(self, monkeypatch):
        self.said = []
        monkeypatch.setattr(transfer, "_has_streams", lambda device: True)
        monkeypatch.setattr(transfer, "_pinned", lambda shape, dtype: torch.empty(shape, dtype=dtype))
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(self, "up"))
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(self, "down"))
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)


class Stream:
    def __init__(self, streams, name):
        self.streams, self.name = streams, name

    def record_event(self):
        number = sum(word.startswith(f"{self.name} ") for word in self.streams.said)
        self.streams.said.append(f"{self.name} {number}")
        return Event(self.streams, number)

    def wait_event(self, event):
        self.streams.said.append(f"work waits for {event.number}")


class Event:
    def __init__(self, streams, number):
        self.streams, self.number = streams, number

    def synchronize(self):
        self.streams.said.append(f"host waits for {self.number}")
