"""The examples of CONTRIBUTING.md do what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.media import Encoding, MediumError
from pipelines.media import catalogue as media_catalogue
from spair_core import images
from spair_core.degradations import catalogue
from spair_core.degradations.crops import Example, degrade
from spair_core.footage import Reach
from spair_core.images import Picture, codec
from spair_core.images.formats import catalogue as formats_catalogue
from spair_core.masks import mask_from_pair

ROOT = Path(__file__).parents[1]
FOG, PCX, STACK, SAMPLE, JOB, COMMAND = re.findall(
    r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL
)


def test_fog_is_one_module_and_one_entry(
    photos: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace: dict[str, object] = {}
    exec(FOG, namespace)
    monkeypatch.setattr(catalogue, "DEGRADATIONS", (*catalogue.DEGRADATIONS, namespace["FOG"]))
    clean = photos[0][:60, :80]
    made = degrade(Example(None, clean), np.random.default_rng(0), "fog", dry=0)
    assert made.degraded is not None
    assert made.mask is not None
    assert made.mask.any()
    assert (made.mask == mask_from_pair(made.degraded, clean)).all()
    assert catalogue.measures("fog") == {"Y"}


def test_pcx_is_one_module_and_one_entry(photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, object] = {}
    exec(PCX, namespace)
    formats = (*formats_catalogue.FORMATS, namespace["PCX"])
    monkeypatch.setattr(formats_catalogue, "FORMATS", formats)
    monkeypatch.setattr(codec, "NAMES", tuple(one.name for one in formats))
    clean = photos[0][:60, :80]
    again = images.decode(images.encode(Picture(clean, "PCX")))
    assert again.format == "PCX"
    assert (again.pixels == clean).all()
    assert ".pcx" in formats_catalogue.suffixes()


def test_a_stack_of_frames_is_one_module_and_one_entry(
    photos: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace: dict[str, Any] = {}
    exec(STACK, namespace)
    monkeypatch.setattr(media_catalogue, "MEDIA", (*media_catalogue.MEDIA, namespace["STACK"]))
    stack = media_catalogue.medium_of("cam1/DRIVE.NPY")
    assert stack is not None
    assert stack.join is not None
    frames = np.stack([np.roll(photos[0][:40, :60], k, axis=1) for k in range(50)])
    np.save(tmp_path / "drive.npy", frames)
    pieces = list(stack.read(tmp_path / "drive.npy", Reach()))
    parts = (
        stack.write(piece.state, piece.window.pixels[list(piece.window.own)], Encoding()) for piece in pieces
    )
    stack.join(parts, tmp_path / "drive.npy", tmp_path / "again.npy")
    assert (np.load(tmp_path / "again.npy") == frames).all()
    assert all(pieces[0].window.neighbours)
    (tmp_path / "text.npy").write_text("no frames")
    with pytest.raises(MediumError, match="not a NumPy file"):
        list(stack.read(tmp_path / "text.npy", None))


FILES = {
    "spair_core/degradations/fog.py": FOG,
    "spair_core/images/formats/pcx.py": PCX,
    "pipelines/media/stacks.py": STACK,
    "jobs/count.py": JOB,
}
ENTRIES = {
    "spair_core/degradations/catalogue.py": ("spair_core.degradations.fog", "FOG", "DEGRADATIONS"),
    "spair_core/images/formats/catalogue.py": ("spair_core.images.formats.pcx", "PCX", "FORMATS"),
    "pipelines/media/catalogue.py": ("pipelines.media.stacks", "STACK", "MEDIA"),
}
"""By catalogue: a module, what it has, and among what that is entered."""
WALKERS = (
    "tests/spair_core/degradations/test_catalogue.py",
    "tests/spair_core/images/test_formats.py",
    "tests/pipelines/media/test_media.py",
    "tests/jobs/test_spair.py",
)


@pytest.mark.long
def test_what_is_added_so_passes_the_checks(tmp_path: Path) -> None:
    """In a copy of the project: the linter, the formatter, and the tests that walk entries."""
    for name in ("jobs", "pipelines", "spair_core", "kernels", "infra", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for name, (module, entry, among) in ENTRIES.items():
        first = r"from __future__ import annotations\n\n"
        put(tmp_path / name, first, f"from {module} import {entry}\n")
        put(tmp_path / name, rf"{among}: .*(?=\)\n)", f", {entry}")
    put(tmp_path / "tests/pipelines/media/samples.py", r"(?=SAMPLES: )", f"{SAMPLE}\n\n")
    put(tmp_path / "tests/pipelines/media/samples.py", r'"table": table,\n', '    "stack": stack,\n')
    put(tmp_path / "jobs/spair.py", r"\n(?=Commands = )", f"{COMMAND}\n\n")
    put(tmp_path / "jobs/spair.py", r"\nCOMMANDS: .*\n", '    "count": _count,\n')
    ruff = str(Path(sys.executable).with_name("ruff"))
    imports = [ruff, "check", "--quiet", "--no-cache", "--select", "I", "--fix"]  # in any order they were put
    for command in (
        [*imports, *ENTRIES],
        [ruff, "check", "--quiet", "--no-cache"],
        [ruff, "format", "--check", "--quiet", "--no-cache"],
        [
            sys.executable,
            "-m",
            "pytest",
            "-vv",
            "-n0",
            *WALKERS,
            "-k",
            "fog or pcx or PCX or npy or is_a_command",
        ],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert all(name in done.stdout for name in ("[fog]", "[PCX]", "[.pcx]", "[.npy]", "is_a_command"))


def put(file: Path, place: str, text: str) -> None:
    """Some text behind the one place that an expression finds."""
    found, times = re.subn(place, lambda match: match[0] + text, file.read_text())
    assert times == 1, (file, place)
    file.write_text(found)


def test_a_job_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text(JOB)
    command = [sys.executable, str(tmp_path / "count.py"), "--destination", str(tmp_path)]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
