import pytest

from kernels import cuda, index
from tests.kernels.emulator import Emulator


@pytest.fixture(scope="session")
def emulator_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("emulation")


@pytest.fixture
def emulator(emulator_folder, monkeypatch):
    """The CUDA forms, made to run on CPU tensors; indices are built as for a GPU."""
    emulator = Emulator(emulator_folder)
    monkeypatch.setattr(cuda, "launch", emulator.launch)
    monkeypatch.setattr(index, "_on_kernels", lambda _: True)
    return emulator
