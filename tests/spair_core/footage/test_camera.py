import numpy as np
import pytest

from spair_core.footage import CameraConfig, Reach, moved, references, windows
from spair_core.footage.camera import TIMES


@pytest.mark.parametrize("size", [48, 128, 600])
def test_the_window_is_that_of_one_frame(photos, size):
    window = moved(photos[1], size, np.random.default_rng(0))
    assert window.pixels.shape == (len(TIMES), size, size, 3)
    assert [TIMES[k] for k in window.own] == [0]
    assert [TIMES[k] for k in window.neighbours[0]] == [-2, -1, 1, 2]


def test_it_looks_where_a_real_clips_windows_look(photos):
    """As `windows` chooses at 30 frames a second."""
    frames = [(np.roll(photos[2], k, axis=1)[:60, :80].copy(), k / 30) for k in range(60)]
    (whole,) = windows(iter(frames), 60, Reach())
    real = whole.at(30)
    simulated = moved(photos[2], 60, np.random.default_rng(0))
    assert len(real.pixels) == len(simulated.pixels)
    assert (real.own, real.neighbours, real.beats) == (simulated.own, simulated.neighbours, simulated.beats)


def test_the_generator_decides_everything(photos):
    pixels = [moved(photos[0], 64, np.random.default_rng(seed)).pixels for seed in (3, 3, 4)]
    assert (pixels[0] == pixels[1]).all()
    assert (pixels[0] != pixels[2]).any()


def test_a_moving_camera_melts_and_a_standing_one_does_not(photos):
    def melted(standing):
        config = CameraConfig(standing=standing)
        windows = [moved(photos[0], 96, np.random.default_rng(seed), config) for seed in range(6)]
        fixed = [(next(references(w))[..., 3:], w.pixels[w.own[0]]) for w in windows]
        return np.mean([np.abs(s.astype(float) - x).mean() for s, x in fixed])

    assert melted(0) > 4 * melted(1)


def test_neighbours_are_brought_back_onto_the_frame(photos):
    window = moved(photos[0], 128, np.random.default_rng(1), CameraConfig(standing=0))
    frame, aligned = window.pixels[window.own[0]], next(references(window))[..., :3]
    beside = window.pixels[window.neighbours[0][0]]
    inner = (slice(16, -16), slice(16, -16))
    apart = [np.abs(other[inner].astype(float) - frame[inner]).mean() for other in (aligned, beside)]
    assert apart[0] < 0.3 * apart[1]
