"""The demo: its footage, its whole course, and what is left when it is broken off."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from infra import demo as program
from infra import footage
from spair_core.images import PictureError, decode
from spair_core.metrics import psnr_y
from spair_core.network import NetworkConfig, Spair
from spair_core.weights import ModelCard, save

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("demo")  # its footage is made once


@pytest.fixture(scope="module")
def night() -> dict[str, footage.Item]:
    return {item.key: item for item in footage.night()}


@pytest.mark.long
def test_stills_are_rainy_but_for_the_dry_one(night: dict[str, footage.Item]) -> None:
    stills = {key: item for key, item in night.items() if "stills/" in key and "broken" not in key}
    gains = {key: psnr_y(decode(item.data).pixels, item.clean[0]) for key, item in stills.items()}
    assert gains.pop("stills/dry.png") == np.inf
    assert len(gains) == 4
    assert max(gains.values()) < 30


def test_the_broken_file_cannot_be_decoded(night: dict[str, footage.Item]) -> None:
    with pytest.raises(PictureError, match="truncated"):
        decode(night["stills/broken.jpg"].data)


def test_clips_hold_the_frames_and_one_has_sound(night: dict[str, footage.Item]) -> None:
    sounds = {}
    for key in ("front/drive.mp4", "rear/launch.mp4"):
        with av.open(io.BytesIO(night[key].data)) as clip:
            assert clip.streams.video[0].frames == len(night[key].clean)
            sounds[key] = len(clip.streams.audio)
    assert sounds == {"front/drive.mp4": 1, "rear/launch.mp4": 0}


@pytest.mark.long
def test_an_items_rain_follows_from_the_seed(night: dict[str, footage.Item]) -> None:
    again, other = (list(footage.night(seed))[2].data for seed in (0, 1))
    assert night["stills/temple.jpg"].data == again != other


@pytest.fixture(scope="module")
def model(tiny_config: NetworkConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network that finds rain everywhere: the demo's course is tested, not its gain."""
    tiny = Spair(tiny_config)
    torch.nn.init.constant_(tiny.localizer.head.bias, 20)
    torch.nn.init.constant_(tiny.restorer.output.bias, 0.1)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    path.write_bytes(save(tiny, ModelCard(tiny_config, "rain", 0.05)))
    return path


def test_a_loop_is_rainy_left_of_its_line_and_restored_right_of_it(tmp_path: Path) -> None:
    before, after = (np.full((8, 40, 64, 3), value, np.uint8) for value in (60, 180))
    program.loop(before, after, tmp_path / "loop.webp")
    with Image.open(tmp_path / "loop.webp") as written:
        assert (written.n_frames, written.info["loop"]) == (8, 0)
        shares = []
        for number in range(8):
            written.seek(number)
            pixels = np.asarray(written.convert("RGB"))[20, :, 0].astype(int)
            assert (abs(pixels[0] - 60) < 8, abs(pixels[-1] - 180) < 8) == (True, True)
            shares.append((pixels < 120).mean())
    assert min(shares) < 0.2 < 0.8 < max(shares)


@contextmanager
def demo(model: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "infra.demo", "--model", str(model), "--folder", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process


@pytest.mark.long
@pytest.mark.cluster
def test_the_whole_demo_keeps_to_loopback(
    model: Path, tmp_path: Path, listening: Callable[[int], set[str]]
) -> None:
    heard = set()
    with demo(model, tmp_path / "demo") as process:
        while process.poll() is None:
            heard |= listening(process.pid)
            time.sleep(0.5)
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    assert process.returncode == 0, "\n".join(lines)
    assert heard == {"127.0.0.1"}
    verdicts = {
        line.split()[0]: line.split()[1] for line in lines if line.startswith(("front/", "rear/", "stills/"))
    }
    assert verdicts.pop("stills/broken.jpg") == "rejected"
    assert set(verdicts.values()) == {"restored"}
    assert len(verdicts) == 7
    with Image.open(tmp_path / "demo" / "drive.webp") as drive:
        assert drive.n_frames == 36
    for name in ("before-after.png", "restored.mp4", "rainy.mp4", "mlflow.db"):
        assert (tmp_path / "demo" / name).stat().st_size > 0


@pytest.mark.cluster
def test_nothing_is_left_of_a_demo_that_is_broken_off(
    model: Path, tmp_path: Path, family: Callable[[int], set[int]]
) -> None:
    with demo(model, tmp_path / "demo") as process:
        started: set[int] = set()
        while len(started) < 10 and process.poll() is None:  # Ray alone is ten processes
            started = family(process.pid)
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    assert len(started) >= 10
    assert not [pid for pid in started if Path(f"/proc/{pid}/exe").exists() and _running(pid)]


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
