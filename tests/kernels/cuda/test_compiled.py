"""Every kernel compiles for every architecture we serve, through the compiler that CuPy uses at run time."""

import ctypes
import re
from importlib import metadata
from pathlib import Path

import pytest

from kernels.cuda import device
from tests.kernels.cuda import builds
from tests.kernels.cuda.emulator import instances

try:
    INSTALLED = {file.name: str(file.locate()) for file in metadata.files("nvidia-cuda-nvrtc") or ()}
except metadata.PackageNotFoundError as missing:
    pytest.skip(f"the compiler that CuPy uses is not installed: {missing}", allow_module_level=True)

OPTIONS = ("-std=c++17", "--device-as-default-execution-space")  # as CuPy calls it
ARCHITECTURES = [
    *(pytest.param(architecture, marks=pytest.mark.long) for architecture in ("sm_80", "sm_86", "sm_89")),
    "sm_90",
]
GROWTHS = (16, 24, 32, 48, 64)  # of the presets
CHANNELS = (48, 72, 96, 256)  # a preset's, one that fills no tile of 16, the most
KERNELS = instances(tiles=[growth // 8 for growth in GROWTHS], channels=CHANNELS)


def compiler() -> ctypes.CDLL:
    """NVRTC by its C interface: the Python one, where installed, is imported by torch in every process.

    Its builtins are loaded before it: by itself it looks for them where the system's libraries are.
    """
    parts = [INSTALLED[name] for name in sorted(INSTALLED) if re.fullmatch(r"libnvrtc\S*\.so\.\S*", name)]
    *_, last = [ctypes.CDLL(part) for part in parts if ".alt." not in part]
    return last


def compiled(file: str, kernels: list[str], architecture: str) -> bytes:
    """The machine code, or an AssertionError with the compiler's words."""
    nvrtc, program = compiler(), ctypes.c_void_p()

    def text_of(what: str) -> bytes:
        size = ctypes.c_size_t()
        assert nvrtc[f"nvrtcGet{what}Size"](program, ctypes.byref(size)) == 0
        text = ctypes.create_string_buffer(size.value)
        assert nvrtc[f"nvrtcGet{what}"](program, text) == 0
        return text.raw

    source, name = device.source(file).encode(), f"{file}.cu".encode()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, name, 0, None, None) == 0
    for kernel in kernels:
        assert nvrtc.nvrtcAddNameExpression(program, kernel.encode()) == 0
    options = [option.encode() for option in (f"--gpu-architecture={architecture}", *OPTIONS)]
    status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    assert status == 0, text_of("ProgramLog").decode()
    for kernel in kernels:
        lowered = ctypes.c_char_p()
        assert nvrtc.nvrtcGetLoweredName(program, kernel.encode(), ctypes.byref(lowered)) == 0, kernel
        assert lowered.value
    return text_of("CUBIN")


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
