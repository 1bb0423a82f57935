import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, shift

from spair_core.footage import Reach, Window, aligned, aligned_on, references, references_on, windows
from spair_core.footage.on_device import flow, warped

CPU = torch.device("cpu")


def smooth(photo, size=(120, 160)):
    return gaussian_filter(photo[: size[0], 60 : 60 + size[1]].astype(np.float32).mean(2), 1.5)


@pytest.mark.parametrize("motion", [(0, 0), (3.5, 0), (-6, 4.25), (11, -2)])
def test_flow_finds_a_motion(photos, motion):
    first = smooth(photos[0])
    second = shift(first, (motion[1], motion[0]), order=3, mode="nearest")
    found = flow(*(torch.from_numpy(side)[None, None] for side in (first, second)))[0].numpy()
    inner = found[:, 20:-20, 24:-24]
    assert np.abs(np.median(inner, axis=(1, 2)) - motion).max() < 0.15
    assert np.abs(inner - np.array(motion)[:, None, None]).mean() < 0.5


def test_warping_takes_each_place_plus_its_motion():
    rng = np.random.default_rng(0)
    picture = rng.random((6, 9))
    motion = rng.uniform(-0.9, 0.9, (2, 6, 9))
    taken = warped(torch.from_numpy(picture)[None, None], torch.from_numpy(motion)[None])[0, 0].numpy()
    for y in range(1, 5):
        for x in range(1, 8):
            at_y, at_x = y + motion[1, y, x], x + motion[0, y, x]
            top, left = int(np.floor(at_y)), int(np.floor(at_x))
            dy, dx = at_y - top, at_x - left
            corners = picture[top : top + 2, left : left + 2]
            expected = corners * np.outer([1 - dy, dy], [1 - dx, dx])
            assert taken[y, x] == pytest.approx(expected.sum())


def drive(photo, count=24):
    """A scene that glides, in streaks and behind drops."""
    rng = np.random.default_rng(0)
    dry, wet = [], []
    for k in range(count):
        scene = photo[60:156, 40 + 3 * k : 200 + 3 * k].copy()
        dry.append(scene)
        rainy = scene.astype(int)
        for y, x in zip(rng.integers(0, 70, 20), rng.integers(0, 158, 20), strict=True):
            rainy[y : y + 24, x : x + 2] += 100
        rainy[20:26, 60:66] = 220
        wet.append(np.clip(rainy, 0, 255).astype(np.uint8))
    return dry, wet


@pytest.mark.long
def test_it_serves_as_well_as_the_form_for_cpus(photos):
    dry, wet = drive(photos[0])
    (window,) = windows(((pixels, k / 30) for k, pixels in enumerate(wet)), 100, Reach())
    here = np.stack(list(references(window))).astype(np.float64)
    there = references_on(window, CPU).permute(0, 2, 3, 1).numpy()
    inner = np.s_[3:-3, 8:-8, 16:-16]
    assert np.abs(here[..., 3:] - there[..., 3:]).mean() < 0.6  # but for an exposure on its threshold
    truth = np.stack(dry)[inner].astype(np.float64)
    away = [np.abs(aligned[..., :3][inner] - truth).mean() for aligned in (here, there)]
    came = np.abs(np.stack(wet)[inner] - truth).mean()
    assert away[1] < 1.5 * away[0]  # of frames of real drives in streaks at most 1.17, on average 1.04
    assert away[1] < 2.5  # levels
    assert away[1] < 0.6 * came


@pytest.mark.long
def test_a_frame_does_not_depend_on_its_run(photos):
    _, wet = drive(photos[0])
    (window,) = windows(((pixels, k / 30) for k, pixels in enumerate(wet)), 100, Reach())
    whole = references_on(window, CPU)
    for k in (0, 1, 11, 23):
        assert (references_on(window.at(k), CPU)[0] - whole[k]).abs().max() <= 1


def test_what_has_no_neighbours_is_its_own_reference(photos):
    window = Window.alone(np.stack([photos[0][:40, :50], photos[1][:40, :50]]))
    both = references_on(window, CPU).permute(0, 2, 3, 1).numpy()
    assert (both == np.concatenate([window.pixels, window.pixels], axis=3)).all()
    tiny = [(np.full((5, 7, 3), 9 * k, np.uint8), k / 30) for k in range(12)]
    (window,) = windows(iter(tiny), 100, Reach())
    assert references_on(window, CPU).shape == (12, 6, 5, 7)


@pytest.mark.long
def test_a_change_of_exposure_is_taken_out(photos):
    dry, _ = drive(photos[0])
    darker = [(pixels * (0.7 if k >= 12 else 1)).astype(np.uint8) for k, pixels in enumerate(dry)]
    (window,) = windows(((pixels, k / 30) for k, pixels in enumerate(darker)), 100, Reach())
    aligned = references_on(window, CPU)[:, :3].mean((1, 2, 3)).numpy()
    assert np.abs(aligned - np.array([pixels.mean() for pixels in darker])).max() < 2


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_restored_frames_are_brought_together_as_well(photos, depth):
    dry, _ = drive(photos[0])
    scale = np.iinfo(depth).max // 255
    window = Window(np.stack(dry[:3]).astype(depth) * scale, range(1, 2), ((0, 2),), ((),))
    here, there = next(aligned(window)) / scale, aligned_on(window, CPU)[0].permute(1, 2, 0).numpy() / scale
    away = [np.abs(one - dry[1])[8:-8, 16:-16].mean() for one in (here, there)]
    apart = np.abs(dry[0].astype(float) - dry[1])[8:-8, 16:-16].mean()
    assert away[1] < 1.3 * away[0] + 0.2
    assert away[1] < 0.3 * apart
