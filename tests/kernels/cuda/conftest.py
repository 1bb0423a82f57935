"""Where the CUDA kernels run in these tests: emulated on the CPU, natively on a GPU."""

import shutil

import pytest
import torch

from kernels import index
from kernels.cuda import device as cuda_device
from tests.kernels.cuda.emulator import ORDERS, Emulator, instances
from tests.kernels.cuda.sanitizer import Sanitizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.fixture(scope="session")
def compiler():
    if not shutil.which("g++"):
        pytest.skip("g++ is not installed: the CUDA kernels cannot be emulated (apt-get install g++)")


@pytest.fixture(scope="session")
def emulation(compiler):
    """Of all kernels that the tests launch."""
    kernels = instances(tiles=(1, 3), channels=(8, 72))
    kernels["snl"] += instances(["float"], channels=(256,))["snl"]
    return Emulator(kernels)


def put_in_place(emulator, monkeypatch):
    """Has the CUDA forms run on CPU tensors, and indices built as for a GPU."""
    emulator.order, emulator.mutation = 0, None
    monkeypatch.setattr(cuda_device, "launch", emulator.launch)
    monkeypatch.setattr(index, "_on_kernels", lambda _: True)
    return emulator


@pytest.fixture
def emulator(emulation, monkeypatch):
    """The CUDA forms, made to run on CPU tensors; indices are built as for a GPU."""
    return put_in_place(emulation, monkeypatch)


@pytest.fixture
def small_emulator(compiler, monkeypatch):
    """The same for what `run_everything` launches in float32."""
    return put_in_place(Emulator(instances(["float"])), monkeypatch)


@pytest.fixture(scope="session")
def sanitizer(compiler):
    """Runs every kernel under the address sanitizer."""
    sanitizer = Sanitizer()
    yield sanitizer
    sanitizer.close()


WHERE = [
    *(
        pytest.param(order, id=name, marks=() if name == "random" else pytest.mark.long)
        for name, order in ORDERS.items()
    ),
    pytest.param(None, id="native", marks=pytest.mark.gpu),
]


@pytest.fixture(params=WHERE)
def device(request):
    """Where the kernels run: on the CPU with that order of threads, or on a GPU."""
    if request.param is None:
        return request.getfixturevalue("gpu")
    request.getfixturevalue("emulator").order = request.param
    return "cpu"


@pytest.fixture(params=DTYPES.values(), ids=DTYPES)
def dtype(request):
    return request.param
