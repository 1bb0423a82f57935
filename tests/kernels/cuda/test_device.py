"""Whether the kernels serve a call, what is said where they do not, and that torch's form then works."""

import sys
import types

import pytest
import torch

from kernels import build_index, reference, sc_block, snl_step
from kernels.cuda import device
from tests.kernels.cuda.dense import dense_attention
from tests.kernels.cuda.pictures import MASKS, block_parameters, made_features
from tests.kernels.samples import rows_of


@pytest.fixture
def said(caplog):
    """The words of the log; what was said once before is said again."""
    device._say_once.cache_clear()
    return lambda: [record.getMessage() for record in caplog.records if record.name == "spair.kernels"]


def test_without_cupy_the_torch_form_is_taken_and_the_log_says_why(monkeypatch, said):
    monkeypatch.setitem(sys.modules, "cupy", None)
    device.unavailable.cache_clear()
    for _ in range(2):
        assert not device.serves("SC", torch.zeros(4, 8), {8: 64})
    device.unavailable.cache_clear()
    assert said() == [
        "SC: CuPy is not installed (pip install cupy-cuda13x); using torch's form, which is slower"
    ]


class OldStream:
    """What torch before 2.10 and CuPy before 14 have: no way to share one."""


@pytest.mark.parametrize("older", ["torch", "CuPy"])
def test_versions_that_cannot_share_a_stream_are_told(older, monkeypatch):
    fake = types.SimpleNamespace(cuda=types.SimpleNamespace(Stream=OldStream))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if older == "torch":
        monkeypatch.setattr(torch.cuda, "Stream", OldStream)
    assert device.unavailable.__wrapped__().startswith(f"{older} is older than")


@pytest.mark.parametrize(
    ("dtype", "width", "words"),
    [
        (torch.float64, 8, "torch.float64 is not among torch.float16, torch.bfloat16, torch.float32"),
        (torch.float32, 12, "the widths [12] are not multiples of 8 up to [64]"),
        (torch.float32, 72, "the widths [72] are not multiples of 8 up to [64]"),
    ],
)
def test_what_the_kernels_do_not_take_is_told(dtype, width, words, monkeypatch, said):
    monkeypatch.setattr(device, "unavailable", lambda: None)
    assert device.serves("SNL", torch.zeros(4, 8), {8: 64})
    assert not device.serves("SNL", torch.zeros(4, width, dtype=dtype), {width: 64})
    assert said() == [f"SNL: {words}; using torch's form, which is slower"]


def test_the_torch_form_works_on_tables_for_the_kernels(emulator):
    """As on a GPU for odd widths: the index is for the kernels, the operators are torch's."""
    mask = MASKS["streaks"]
    tables = build_index(mask)
    assert tables.neighbours.dtype == torch.int32
    features = made_features(mask, 5, torch.float64).requires_grad_()
    parameters = block_parameters(5, 3, 2, torch.float64)
    got = sc_block(rows_of(features)[tables.active], tables, *parameters)
    exact = rows_of(reference.sc_block(features, mask, *parameters))[tables.active]
    assert torch.allclose(got, exact)
    both = [torch.autograd.grad(out.square().sum(), features)[0] for out in (got, exact)]
    assert torch.allclose(*both)

    blend = made_features(mask, 4, torch.float64)
    cells = rows_of(features.detach())
    inputs = [cells[tables.active], cells[tables.clean], rows_of(blend)[tables.active]]
    leaves = [value.requires_grad_() for value in inputs]
    gathered = snl_step(*leaves, tables, 0.4)
    upstream = made_features(mask, 5, torch.float64, seed=3)
    theirs = dense_attention(features.detach(), mask, blend, upstream, tables, torch.float64)
    mine = [gathered, *torch.autograd.grad(gathered, leaves, rows_of(upstream)[tables.active])]
    assert all(torch.allclose(a, b) for a, b in zip(mine, theirs, strict=True))
