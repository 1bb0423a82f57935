import numpy as np
import pytest
import torch

from spair_core import inference, metrics, weights
from spair_core.degradations import catalogue
from spair_core.inference import precision
from spair_core.network import lowered

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_what_was_asked_for_is_taken(name):
    assert precision.chosen(name, CPU) == precision.chosen(name, GPU) == name
    assert precision.type_of(name) == getattr(torch, name)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse avx512f avx512_bf16 fma", "bfloat16"),
        ("fpu amx_tile", "bfloat16"),
        ("fpu avx512f avx2", "float32"),
        ("", "float32"),
    ],
)
def test_auto_asks_the_processor(flags, expected, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nbugs\t: amx_tile\nflags\t\t: {flags}\n")
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
    assert precision.chosen("auto", CPU) == precision.chosen("auto") == expected


def test_a_system_that_does_not_list_them_stays_with_float32(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "none")
    assert precision.chosen("auto", CPU) == "float32"


@pytest.mark.skipif(not hasattr(torch.cpu, "_is_avx512_bf16_supported"), reason="this torch cannot be asked")
def test_the_processor_is_known_as_torch_knows_it():
    known = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert precision.chosen("auto") == ("bfloat16" if known else "float32")


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_auto_asks_the_gpu(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.chosen("auto", GPU) == expected


@pytest.mark.long
@pytest.mark.parametrize("name", ["rain-light", "footage-light"])
def test_bfloat16_restores_as_well(name, photos):
    model = weights.load(weights.shipped(name))[0]
    clean = np.ascontiguousarray(photos[3][:192, :256])
    draw = catalogue.degradation("rain").draw
    rainy = np.stack([draw(clean, np.random.default_rng(seed), 0.0, 0.05)[0] for seed in range(6)])
    exact, low = (
        inference.restore(lowered(model, dtype), rainy).pixels for dtype in (torch.float32, torch.bfloat16)
    )
    before, as_exact, as_low = (
        np.array([metrics.psnr_y(one, clean) for one in pictures]) for pictures in (rainy, exact, low)
    )
    assert as_exact.mean() > before.mean() + 0.4
    assert as_low.mean() == pytest.approx(as_exact.mean(), abs=0.02)
    assert as_low == pytest.approx(as_exact, abs=0.08)
    assert (low != exact).any()
