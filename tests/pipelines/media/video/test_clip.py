"""Frames are restored upright, as players show them, and stored as they were."""

from itertools import product

import av
import numpy as np
import pytest

from pipelines.media import clips
from pipelines.media.video.clip import Turn, sides
from spair_core.metrics import psnr_y
from tests.pipelines.media.video.samples import filmed, restored

ONE = 1 << 16
LAST = 1 << 30
WAYS = [
    (*matrix, 0, 0, LAST)
    for a, b in product((ONE, -ONE), repeat=2)
    for matrix in ((a, 0, 0, 0, b, 0), (0, a, 0, b, 0, 0))
]
"""The display matrices of cameras: quarters of a turn, and mirrors."""


def placed(frame, matrix):
    """Each pixel (p, q), from its column and row, at (a p + c q, b p + d q), as ISO 14496-12 has it."""
    a, b, _, c, d = (number // ONE for number in matrix[:5])
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]]
    x, y = a * columns + c * rows, b * columns + d * rows
    x, y = x - x.min(), y - y.min()
    shown = np.zeros((y.max() + 1, x.max() + 1, *frame.shape[2:]), frame.dtype)
    shown[y, x] = frame
    return shown


def turn_of(matrix):
    return Turn.of(np.array(matrix, np.int32).tobytes())


@pytest.mark.parametrize("matrix", WAYS)
def test_a_frame_is_brought_upright_and_back(matrix):
    frame = np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8)
    turn = turn_of(matrix)
    assert (turn.upright(frame) == placed(frame, matrix)).all()
    assert (turn.stored(turn.upright(frame)[None])[0] == frame).all()


@pytest.mark.parametrize("matrix", [(), (ONE,) * 3, (ONE, ONE, 0, -ONE, ONE, 0, 0, 0, LAST), (0,) * 9])
def test_what_turns_by_other_than_quarters_turns_nothing(matrix):
    assert turn_of(matrix) == Turn()


def stored(path):
    with av.open(str(path)) as clip:
        frames = list(clip.decode(video=0))
    return [frame.to_ndarray(format="rgb24") for frame in frames], sides(frames[0]).get("DISPLAYMATRIX", b"")


@pytest.mark.parametrize("matrix", WAYS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_turned_clip_is_seen_upright_and_stays_as_it_is(matrix, suffix, tmp_path):
    source = filmed(tmp_path / f"in{suffix}", matrix=matrix)
    before, told = stored(source)
    (run,) = clips.read(source, None)
    for frame, pixels in zip(before, run.window.pixels, strict=True):
        assert psnr_y(pixels, placed(frame, matrix)) > 36
    target = tmp_path / f"out{suffix}"
    restored(source, target)
    after, still = stored(target)
    assert still == told
    for old, new in zip(before, after, strict=True):
        assert old.shape == new.shape
        assert psnr_y(old, new) > 36


def test_transparency_is_turned_with_its_frames(tmp_path):
    source = filmed(tmp_path / "in.mov", codec="prores_ks", pixels="yuva444p10le", matrix=WAYS[1])
    target = tmp_path / "out.mov"
    restored(source, target)
    alphas = []
    for path in (source, target):
        with av.open(str(path)) as clip:
            alphas.append(next(clip.decode(video=0)).to_ndarray(format="rgba")[..., 3].astype(int))
    assert np.abs(alphas[0] - alphas[1]).mean() < 2
