"""Every kernel compiles for every architecture we serve, through the compiler that CuPy uses at run time."""

import pytest
from cuda.bindings import nvrtc

from kernels import cuda
from tests.kernels import emulator
from tests.kernels.emulator import TYPES

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90")
GROWTHS = (16, 24, 32, 48, 64)  # of the presets
CHANNELS = (48, 72, 96, 256)  # a preset's, one that fills no tile of 16, the most
KERNELS = emulator.KERNELS | {
    "sc": [f"sc_product<{kind}, {growth // 8}, true>" for kind in TYPES for growth in GROWTHS]
    + [f"sc_product<{kind}, 8, false>" for kind in TYPES]
    + [f"sc_weight_grad<{kind}, {growth // 8}>" for kind in TYPES for growth in GROWTHS],
    "snl": [
        f"snl_{kernel}<{kind}, {channels}>"
        for kind in TYPES
        for channels in CHANNELS
        for kernel in ("forward", "query_grad", "key_grad")
    ],
}


def compiled(file: str, kernels: list[str], architecture: str) -> bytes:
    """The machine code, or an AssertionError with the compiler's words."""
    text = cuda.source(file).encode()
    _, program = nvrtc.nvrtcCreateProgram(text, f"{file}.cu".encode(), 0, [], [])
    for kernel in kernels:
        nvrtc.nvrtcAddNameExpression(program, kernel.encode())
    # As CuPy calls it.
    options = [f"--gpu-architecture={architecture}", "-std=c++17", "--device-as-default-execution-space"]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * (size + 2)  # written into: it must not be one of the bytes of length 1 that Python shares
    nvrtc.nvrtcGetProgramLog(program, log)
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, log.decode()
    for kernel in kernels:
        status, lowered = nvrtc.nvrtcGetLoweredName(program, kernel.encode())
        assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, kernel
        assert lowered
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    machine_code = b" " * (size + 2)
    nvrtc.nvrtcGetCUBIN(program, machine_code)
    return machine_code[:size]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", KERNELS)
def test_kernels_compile(file, architecture):
    assert compiled(file, KERNELS[file], architecture)[:4] == b"\x7fELF"


def test_a_mistake_is_told(monkeypatch):
    text = cuda.source("sfm").replace("sqrtf", "sqrtt")
    monkeypatch.setattr(cuda, "source", lambda _: text)
    with pytest.raises(AssertionError, match="sqrtt"):
        compiled("sfm", ["sfm_statistics"], "sm_90")
