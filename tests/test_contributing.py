"""The examples of CONTRIBUTING.md do what it says."""

from __future__ import annotations

import re
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
FOG, PCX, STACK, JOB = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)


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


def test_a_job_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text(JOB)
    command = [sys.executable, str(tmp_path / "count.py"), "--destination", str(tmp_path)]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
