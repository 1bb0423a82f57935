import shutil

import pytest
import torch

from kernels import cuda, index
from tests.kernels.emulator import Emulator


@pytest.fixture(scope="session")
def emulator_folder(tmp_path_factory):
    if not shutil.which("g++"):
        pytest.skip("g++ is not installed: the CUDA kernels cannot be emulated (apt-get install g++)")
    return tmp_path_factory.mktemp("emulation")


@pytest.fixture
def emulator(emulator_folder, monkeypatch):
    """The CUDA forms, made to run on CPU tensors; indices are built as for a GPU."""
    emulator = Emulator(emulator_folder)
    monkeypatch.setattr(cuda, "launch", emulator.launch)
    monkeypatch.setattr(index, "_on_kernels", lambda _: True)
    return emulator


@pytest.fixture
def gpu() -> str:
    """The device's name, where the kernels can run natively."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no NVIDIA GPU here: not run natively")
    if reason := cuda.unavailable():
        pytest.skip(f"{reason}: not run natively")
    return "cuda"
