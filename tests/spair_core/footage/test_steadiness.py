import numpy as np
import pytest

from spair_core.footage.steadiness import (
    Motion,
    flips,
    kept_contrast,
    occluded,
    residue,
    warped,
    warping_error,
)


def shifted(photo, step, count=6, size=(96, 128)):
    return [photo[40 : 40 + size[0], 100 - step * k : 100 - step * k + size[1]].copy() for k in range(count)]


def by_hand(shape, flow):
    return np.broadcast_to(np.array(flow, np.float32), (*shape, 2)).copy()


def test_the_warping_error_is_its_formula():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
    seen = rng.random((6, 8)) < 0.6
    motion = Motion(by_hand((6, 8), (1, 0)), seen)
    total = 0.0
    for y, x in zip(*np.nonzero(seen), strict=True):
        there = second[y, min(x + 1, 7)].astype(float)
        total += (((first[y, x] - there) / 255) ** 2).sum()
    assert warping_error(first, second, motion) == pytest.approx(total / seen.sum(), rel=1e-6)
    assert np.isnan(warping_error(first, second, Motion(motion.flow, np.zeros((6, 8), bool))))


def test_occlusion_is_its_formula():
    rng = np.random.default_rng(1)
    forward, backward = (rng.normal(0, s, (7, 9, 2)).astype(np.float32) for s in (0.4, 0.4))
    found = occluded(forward, backward)
    back = warped(backward, forward).astype(np.float64)
    for y in range(7):
        for x in range(9):
            w, b = forward[y, x].astype(np.float64), back[y, x]
            lost = ((w + b) ** 2).sum() > 0.01 * ((w**2).sum() + (b**2).sum()) + 0.5
            steep = sum(np.gradient(forward[..., k], axis=a)[y, x] ** 2 for k in (0, 1) for a in (0, 1))
            assert found[y, x] == (lost or steep > 0.01 * (w**2).sum() + 0.002)


def test_steady_footage_flickers_no_more_than_its_coding_and_unsteady_more(photos):
    frames = shifted(photos[0], 3)
    motion = Motion.between(frames[0], frames[1])
    assert motion.seen.mean() > 0.5
    calm = warping_error(frames[0], frames[1], motion)
    brighter = np.clip(frames[1].astype(int) + 12, 0, 255).astype(np.uint8)
    assert warping_error(frames[0], brighter, motion) > calm + 3 * (10 / 255) ** 2


def test_mask_bits_that_move_with_the_scene_do_not_flip():
    first = np.zeros((40, 60), bool)
    first[10:20, 10:30] = True
    second = np.roll(first, 4, axis=1)
    seen = np.ones((40, 60), bool)
    assert flips(first, second, Motion(by_hand((40, 60), (4, 0)), seen)) == 0
    gone = np.zeros_like(first)
    assert flips(first, gone, Motion(by_hand((40, 60), (0, 0)), seen)) == pytest.approx(200 / 2400)


def test_drops_on_the_glass_are_residue_and_the_moving_scene_is_not(photos):
    dry = shifted(photos[0], 9, count=8)
    wet = [frame.copy() for frame in dry]
    for frame in wet:
        for y, x in ((20, 30), (50, 90), (70, 40)):
            frame[y : y + 5, x : x + 5] = 230
    assert residue(wet) > 1.1 * residue(dry)
    half = [((a.astype(int) + b) // 2).astype(np.uint8) for a, b in zip(wet, dry, strict=True)]
    assert residue(dry) < residue(half) < residue(wet)


def test_contrast_of_what_stands_still_is_told(photos):
    truth = shifted(photos[0], 9, count=8)
    for frame in truth:
        frame[60:66, 20:100] = 240  # a marking
    faded = [frame.copy() for frame in truth]
    for frame, scene in zip(faded, shifted(photos[0], 9, count=8), strict=True):
        frame[60:66, 20:100] = scene[60:66, 20:100]
    assert kept_contrast(truth, truth) == pytest.approx(1)
    assert kept_contrast(faded, truth) < 0.6
    assert np.isnan(kept_contrast([truth[0] * 0] * 3, [truth[0] * 0] * 3))
