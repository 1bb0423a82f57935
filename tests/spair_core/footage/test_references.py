from itertools import pairwise

import cv2
import numpy as np
import pytest
from scipy.ndimage import shift

from spair_core.footage import Reach, Window, aligned, references, windows
from spair_core.footage.references import exposed_like, median

SIZE = (96, 160)


def glide(photo, count, *, speed=2.5):
    """A photograph that moves by a fraction of a pixel more each frame."""
    return [
        shift(photo[:96, 40:360].astype(np.float32), (0, -speed * k, 0), order=1)[:, :160]
        .round()
        .astype(np.uint8)
        for k in range(count)
    ]


def beside(frames, rate=30.0, run=8):
    """Aligned and fixed references of all frames."""
    stream = ((pixels, k / rate) for k, pixels in enumerate(frames))
    both = [pair for window in windows(stream, run, Reach()) for pair in references(window)]
    return [pair[..., :3] for pair in both], [pair[..., 3:] for pair in both]


def apart(a, b):
    return np.abs(a.astype(float) - b).mean()


@pytest.fixture(scope="module")
def scene(photos):
    return glide(photos[2], 40)


def streaked(frames, seed=0):
    """Streaks, bright and two pixels wide, at new places in each frame."""
    rng = np.random.default_rng(seed)
    rainy = []
    for pixels in frames:
        wet = pixels.astype(float)
        for row, column in zip(rng.integers(0, 70, 25), rng.integers(0, 158, 25), strict=True):
            wet[row : row + 26, column : column + 2] += 110
        rainy.append(np.clip(wet, 0, 255).astype(np.uint8))
    return rainy


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_the_median_is_that_of_each_place(count):
    stack = np.random.default_rng(count).integers(0, 256, (count, 20, 30, 3), dtype=np.uint8)
    expected = np.median(stack.astype(np.float64), axis=0)
    assert np.abs(median(list(stack)) - expected).max() <= (0.5 if count % 2 == 0 else 0)


def test_streaks_are_not_in_the_aligned_reference(scene):
    rainy = streaked(scene)
    aligned, _ = beside(rainy)
    inner = (slice(8, -8), slice(16, -16))
    for k in range(2, 38):
        assert apart(aligned[k][inner], scene[k][inner]) < 0.4 * apart(rainy[k][inner], scene[k][inner])


def test_what_stands_on_the_glass_stays_in_the_fixed_reference_and_the_scene_melts(scene):
    frames = [pixels.copy() for pixels in scene]
    for pixels in frames:
        pixels[40:50, 70:82] = (250, 20, 20)
    _, fixed = beside(frames)
    assert apart(fixed[20][40:50, 70:82], frames[20][40:50, 70:82]) < 1
    detail = [
        np.abs(np.diff(pixels[60:, :].astype(float), axis=1)).mean() for pixels in (scene[20], fixed[20])
    ]
    assert detail[1] < 0.8 * detail[0]


def test_a_standing_camera_sees_the_scene_in_both(photos):
    rng = np.random.default_rng(0)
    still = photos[0][:96, :160]
    noisy = [np.clip(still + rng.normal(0, 4, still.shape), 0, 255).astype(np.uint8) for _ in range(40)]
    aligned, fixed = beside(noisy)
    assert apart(aligned[20], still) < 0.75 * apart(noisy[20], still)
    assert apart(fixed[20], still) < 0.75 * apart(noisy[20], still)


def test_a_static_scene_differs_at_the_joins_of_runs_no_more_than_elsewhere(photos):
    rng = np.random.default_rng(0)
    still = photos[0][:96, :160]
    noisy = [np.clip(still + rng.normal(0, 3, still.shape), 0, 255).astype(np.uint8) for _ in range(48)]
    for kind in beside(noisy, run=16):
        steps = np.array([apart(a, b) for a, b in pairwise(kind[4:-4])])
        assert steps[[11, 27]].max() <= steps.max(initial=0, where=~np.isin(np.arange(steps.size), [11, 27]))


def test_whole_and_in_runs_the_references_are_the_same(scene):
    rainy = streaked(scene)
    for whole, parts in zip(beside(rainy, run=100), beside(rainy, run=7), strict=True):
        assert all((a == b).all() for a, b in zip(whole, parts, strict=True))


def test_a_fast_bright_box_leaves_nothing_where_it_was(photos):
    """40 pixels a frame are further than the box is wide: the flow cannot follow it."""
    plain = streaked([photos[0][:96, :320]] * 7)
    boxed = [pixels.copy() for pixels in plain]
    for k, pixels in enumerate(boxed):
        pixels[40:64, 8 + 40 * k : 32 + 40 * k] = 250
    without, aligned = beside(plain)[0][3], beside(boxed)[0][3]
    for k in (1, 2, 4, 5):
        old = (slice(40, 64), slice(8 + 40 * k, 32 + 40 * k))
        assert apart(aligned[old], without[old]) < 6
        assert aligned[old].mean() < without[old].mean() + 4


def test_a_wiper_over_a_neighbour_does_not_show(scene):
    frames = [pixels.copy() for pixels in scene]
    frames[21][:, 60:100] = 5
    aligned, fixed = beside(frames)
    middle = (slice(8, -8), slice(70, 90))
    assert apart(aligned[20][middle], scene[20][middle]) < 5
    assert apart(fixed[20][middle], beside(scene)[1][20][middle]) < 5


def test_a_change_of_exposure_is_taken_out(scene):
    darker = [(pixels * (0.7 if k >= 20 else 1)).astype(np.uint8) for k, pixels in enumerate(scene)]
    aligned, fixed = beside(darker)
    for k in (19, 20, 21):
        assert abs(float(aligned[k].mean()) - float(darker[k].mean())) < 2
        assert abs(float(fixed[k].mean()) / float(darker[k].mean()) - 1) < 0.08


def test_exposures_are_matched_by_one_gain(photos):
    dark = (photos[0] * 0.5).astype(np.uint8)
    assert apart(exposed_like(dark, photos[0]), np.minimum(photos[0], 254)) < 1.5
    assert exposed_like(photos[0], photos[0]) is photos[0]
    black = np.zeros_like(photos[0])
    assert exposed_like(black, photos[0]) is black


def test_pictures_and_lone_frames_are_their_own_references(photos):
    window = Window.alone(np.stack([photos[0][:50, :70], photos[1][:50, :70]]))
    for pixels, both in zip(window.pixels, references(window), strict=True):
        assert (both == np.concatenate([pixels, pixels], axis=2)).all()


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_frames_for_a_median(scene, count):
    aligned, fixed = beside(scene[:count])
    assert all((a == pixels).all() for a, pixels in zip(aligned, scene, strict=False))
    assert all((s == pixels).all() for s, pixels in zip(fixed, scene, strict=False))


def test_frames_smaller_than_a_patch_of_the_flow():
    tiny = [np.full((5, 7, 3), 10 * k, np.uint8) for k in range(1, 12)]
    aligned, _ = beside(tiny)
    assert aligned[5].shape == (5, 7, 3)


def passing_marks(photo, count=3, speed=9.0):
    """A dim scene that passes, and where thin bright marks are in it: restored frames, and masks of marks."""
    scene = (photo[:96, 40:360] * 0.4 + 40).astype(np.uint8)
    marks = np.zeros(scene.shape[:2], np.uint8)
    for column in range(20, 300, 40):
        cv2.line(marks, (column, 70), (column + 12, 90), 255, 3)
    scene[marks > 0] = 210
    at = glide(np.pad(marks[..., None].repeat(3, 2), ((0, 0), (40, 0), (0, 0))), count, speed=speed)
    painted = np.pad(scene, ((0, 0), (40, 0), (0, 0)), mode="reflect")
    return np.stack(glide(painted, count, speed=speed)), [one[..., 0] > 200 for one in at]


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_thin_marks_that_pass_are_kept_in_what_restored_frames_agree_on(photos, depth):
    frames, marks = passing_marks(photos[2])
    scale = np.iinfo(depth).max // 255
    window = Window(frames.astype(depth) * scale, range(1, 2), ((0, 2),), ((),))
    (seen,) = aligned(window)
    assert seen.dtype == depth
    inner = np.zeros(SIZE, bool)
    inner[:, 24:-24] = True
    mark, beside = marks[1] & inner, ~marks[1] & inner & (np.arange(SIZE[0])[:, None] >= 70)
    contrast = [
        one[mark].mean() - one[beside].mean() for one in (frames[1] * float(scale), seen.astype(float))
    ]
    assert contrast[1] > 0.95 * contrast[0]
    assert np.abs(seen / scale - frames[1])[inner].mean() < 3


def test_sixteen_bit_frames_are_exposed_alike():
    deep = np.random.default_rng(0).integers(3000, 30000, (40, 60, 3), dtype=np.uint16)
    brighter = (deep * 1.5).astype(np.uint16)
    assert np.abs(exposed_like(deep, brighter).astype(int) - brighter).max() < 60
    assert exposed_like(brighter, brighter) is brighter
