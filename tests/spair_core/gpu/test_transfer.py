"""Copies that do not wait: their order, and that they change nothing."""

import copy

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")  # a machine that is lent for its GPU may lack it, and what knows footage with it

from spair_core import inference
from spair_core.footage import Window
from spair_core.gpu import brought_back, tensor_of, uploaded
from spair_core.inference import runs
from spair_core.network import Spair
from tests.spair_core.gpu.streams import Streams

CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(2)
    return Spair(tiny_config).eval()


def drive(dtype, count, height, width):
    """Frames of noise that are all marked in part, and changed by more than what no one sees."""
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (count, height, width, 3), dtype=dtype)


def batches(dtype=np.uint8, count=3):
    rng = np.random.default_rng(0)
    return [rng.integers(0, np.iinfo(dtype).max, (2, 3, 4, 3), dtype=dtype) for _ in range(count)]


def test_the_next_batch_is_sent_before_work_and_a_result_read_after_the_next(monkeypatch):
    streams = Streams(monkeypatch)

    def work():
        for frames in uploaded(batches(), CPU):
            streams.said.append("work")
            yield (frames,)

    for _ in brought_back(work(), CPU):
        streams.said.append("read")
    begun = ["up 0", "up 1", "work waits for 0", "work", "down 0"]
    then = ["up 2", "work waits for 1", "work", "down 1", "host waits for 0", "read"]
    last = ["work waits for 2", "work", "down 2", "host waits for 1", "read", "host waits for 2", "read"]
    assert streams.said == begun + then + last


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("streams", [None, Streams], ids=["plain", "streams"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_all_come_in_their_order(dtype, streams, count, monkeypatch):
    if streams:
        streams(monkeypatch)
    given = batches(dtype, count)
    frames = list(uploaded(given, CPU))
    for got, sent in zip(frames, given, strict=True):
        assert torch.equal(got, torch.tensor(sent.astype(np.float32)).permute(0, 3, 1, 2))
        assert torch.equal(got, tensor_of(sent, CPU))
    back = list(brought_back(((2 * each, each.sum()) for each in frames), CPU))
    for (double, total), each in zip(back, frames, strict=True):
        assert (double == 2 * each.numpy()).all()
        assert total == each.sum().numpy()


def test_nothing_is_made_ahead_on_a_cpu():
    made = []
    arrays = (made.append(k) or array for k, array in enumerate(batches()))
    for k, _ in enumerate(brought_back(((frames,) for frames in uploaded(arrays, CPU)), CPU)):
        assert made == list(range(k + 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_run_is_restored_as_its_frames_are_one_by_one(model, dtype, monkeypatch):
    frames = drive(dtype, 4, 48, 64)
    alone = [inference.restore(model, frame[None]) for frame in frames]
    Streams(monkeypatch)
    run = inference.restore_window(model, Window.alone(frames))
    assert run.pixels.dtype == dtype
    assert (run.pixels != frames).any()
    assert (run.pixels == np.concatenate([one.pixels for one in alone])).all()
    assert (run.mask == np.concatenate([one.mask for one in alone])).all()


def test_what_is_no_number_is_an_error_with_streams_too(model, monkeypatch):
    damaged = copy.deepcopy(model)
    with torch.no_grad():
        next(damaged.restorer.parameters()).fill_(float("nan"))
    Streams(monkeypatch)
    with pytest.raises(FloatingPointError, match="not finite"):
        inference.restore_window(damaged, Window.alone(drive(np.uint8, 1, 64, 64)))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_on_a_gpu_a_run_is_restored_as_its_batches_are_one_by_one(model, dtype, gpu, monkeypatch):
    model = copy.deepcopy(model).to(gpu)
    frames = drive(dtype, 7, 120, 160)
    monkeypatch.setattr(runs, "BATCH_PIXELS", 2 * 120 * 160)
    alone = [inference.restore(model, frames[start : start + 2]) for start in range(0, 7, 2)]
    for _ in range(3):
        run = inference.restore_window(model, Window.alone(frames))
        assert (run.pixels == np.concatenate([one.pixels for one in alone])).all()
        assert (run.mask == np.concatenate([one.mask for one in alone])).all()
