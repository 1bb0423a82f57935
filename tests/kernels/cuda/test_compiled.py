"""Every kernel compiles for every architecture we serve, through the compiler that CuPy uses at run time."""

from importlib import metadata
from pathlib import Path

import pytest

from kernels.cuda import device
from tests.kernels.cuda import builds
from tests.kernels.cuda.emulator import instances

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", exc_type=ImportError)

OPTIONS = ("-std=c++17", "--device-as-default-execution-space")  # as CuPy calls it
ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90")
GROWTHS = (16, 24, 32, 48, 64)  # of the presets
CHANNELS = (48, 72, 96, 256)  # a preset's, one that fills no tile of 16, the most
KERNELS = instances(tiles=[growth // 8 for growth in GROWTHS], channels=CHANNELS)


def compiled(file: str, kernels: list[str], architecture: str) -> bytes:
    """The machine code, or an AssertionError with the compiler's words."""
    text = device.source(file).encode()
    _, program = nvrtc.nvrtcCreateProgram(text, f"{file}.cu".encode(), 0, [], [])
    for kernel in kernels:
        nvrtc.nvrtcAddNameExpression(program, kernel.encode())
    options = [f"--gpu-architecture={architecture}", *OPTIONS]
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
    def build(made: Path) -> None:
        made.write_bytes(compiled(file, KERNELS[file], architecture))

    version, kernels = metadata.version("nvidia-cuda-nvrtc"), KERNELS[file]
    ingredients = [version, architecture, *OPTIONS, *kernels, device.source(file)]
    made = builds.kept(f"{file}-{architecture}.cubin", ingredients, build)
    assert made.read_bytes()[:4] == b"\x7fELF"


def test_a_mistake_is_told(monkeypatch):
    text = device.source("sfm").replace("sqrtf", "sqrtt")
    monkeypatch.setattr(device, "source", lambda _: text)
    with pytest.raises(AssertionError, match="sqrtt"):
        compiled("sfm", ["sfm_statistics"], "sm_90")
