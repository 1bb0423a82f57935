from dataclasses import replace

import numpy as np
import pytest

from spair_core.degradations.motion import (
    FocusConfig,
    MotionConfig,
    ShakeKernels,
    add_motion_blur,
    average_frames,
    draw_path,
    move,
    shake,
    soften,
)
from spair_core.light import linear
from spair_core.masks import mask_from_pair

MOVING = MotionConfig(dry=0)
KINDS = {"camera": replace(MOVING, objects=0), "object": replace(MOVING, objects=1)}


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_masks_are_exact(photos, config):
    clean = photos[0][:160, :200]
    shares = []
    for seed in range(8):
        blurred, mask = add_motion_blur(clean, np.random.default_rng(seed), replace(config, threshold=0.1))
        assert (mask == mask_from_pair(blurred, clean, 0.1)).all()
        shares.append(mask.mean())
    assert 0.01 < np.mean(shares) < 0.6


def test_the_seed_decides(photos):
    clean = photos[1][:60, :70]
    first, again, other = (add_motion_blur(clean, np.random.default_rng(s), MOVING)[0] for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_some_pictures_stay_sharp(photos):
    clean = photos[1][:40, :40]
    rng = np.random.default_rng(0)
    sharp = [(add_motion_blur(clean, rng, MotionConfig(dry=0.5))[0] == clean).all() for _ in range(60)]
    assert 15 < sum(sharp) < 45


def test_paths_have_their_length_and_stay_around_the_middle():
    for seed in range(10):
        path = draw_path(np.random.default_rng(seed), 12.0, 1.5)
        assert np.hypot(*np.diff(path, axis=0).T).sum() == pytest.approx(12, rel=0.2)
        assert path.mean(0) == pytest.approx([0, 0], abs=1e-9)
    straight = draw_path(np.random.default_rng(0), 12.0, 0.0)
    assert np.hypot(*(straight[-1] - straight[0])) == pytest.approx(12, rel=0.2)


def test_no_way_blurs_nothing(photos):
    clean = photos[0][:50, :60]
    still = np.zeros((5, 2))
    assert (shake(clean, still, np.zeros(5)) == clean).all()
    assert (move(clean, np.ones((50, 60), np.float32), still) == clean).all()


def test_a_shaken_camera_keeps_the_light(photos):
    clean = photos[0][:200, :200]
    for seed in range(4):
        blurred, _ = add_motion_blur(clean, np.random.default_rng(seed), KINDS["camera"])
        assert linear(blurred).mean() == pytest.approx(linear(clean).mean(), rel=0.02)


def test_whole_shifts_are_a_convolution_in_linear_light():
    clean = np.zeros((21, 21, 3), np.uint8)
    clean[10, 10] = 255
    blurred = shake(clean, np.array([[0.0, 0], [0, 3], [-2, 0]]), np.zeros(3), np.array([0.5, 0.25, 0.25]))
    light = linear(blurred)[..., 0]
    assert light[10, 10] == pytest.approx(0.5, abs=0.01)
    assert light[10, 13] == pytest.approx(0.25, abs=0.01)
    assert light[8, 10] == pytest.approx(0.25, abs=0.01)
    assert light.sum() == pytest.approx(1, abs=0.02)


def test_a_turning_camera_blurs_the_rim_and_not_the_middle():
    board = np.uint8(255 * ((np.indices((201, 201)).sum(0) // 5) % 2))[..., None].repeat(3, 2)
    turns = np.linspace(-2, 2, 30)
    error = np.abs(shake(board, np.zeros((30, 2)), turns).astype(int) - board)[..., 0]
    distance = np.hypot(*(np.indices((201, 201)) - 100))
    assert error[distance < 15].mean() < 0.5 * error[(distance > 75) & (distance < 95)].mean()


def test_an_object_moves_before_what_is_behind_it():
    clean = np.full((60, 60, 3), 50, np.uint8)
    clean[20:40, 20:40] = 200
    cover = (clean[..., 0] == 200).astype(np.float32)
    path = np.stack([np.zeros(9), np.arange(-4.0, 5)], 1)
    blurred = move(clean, cover, path)
    assert (blurred[:20] == clean[:20]).all()
    assert (blurred[25:35, 27:33] == 200).all()
    rises = linear(blurred)[30, 14:26, 0]
    assert (np.diff(rises) > -1e-3).all()
    # At the old edge the object was there for half of the time.
    assert rises[6] == pytest.approx((linear(np.uint8([50]))[0] + linear(np.uint8([200]))[0]) / 2, rel=0.15)


def test_given_regions_move_alone(photos):
    clean = photos[0][100:220, 200:320]
    regions = np.zeros((120, 120), np.int32)
    regions[40:80, 40:80] = 1
    config = replace(KINDS["object"], length=(12, 12))
    square = 0
    for seed in range(24):
        blurred, mask = add_motion_blur(clean, np.random.default_rng(seed), config, regions)
        moved = (blurred != clean).any(axis=2)
        assert mask.any()
        if not moved[:10].any():
            square += 1
            assert moved[45:75, 45:75].mean() > 0.9
            assert not moved[:25].any()
            assert not moved[:, 95:].any()
    assert 0 < square < 12  # a ninth of the picture, and so chosen about every ninth time
    with pytest.raises(ValueError, match="regions are"):
        add_motion_blur(clean, np.random.default_rng(0), MOVING, regions[:5])


def test_measured_kernels_are_used_as_they_are():
    kernel = np.zeros((5, 5))
    kernel[2, 1:4] = 1
    dot = np.zeros((31, 31, 3), np.uint8)
    dot[15, 15] = 255
    blurred, mask = ShakeKernels([kernel], replace(MOVING, turn=(0, 0))).add(dot, np.random.default_rng(0))
    light = linear(blurred)[..., 0]
    assert np.sort(light.ravel())[-3:] == pytest.approx([1 / 3] * 3, abs=0.01)
    assert (mask == mask_from_pair(blurred, dot)).all()
    again, _ = ShakeKernels([kernel], replace(MOVING, turn=(0, 0))).add(dot, np.random.default_rng(0))
    assert (blurred == again).all()


@pytest.mark.parametrize(
    "kernels", [[], [np.zeros((3, 3))], [np.full((3, 3), -1.0)], [np.full((2, 2), np.nan)], [np.ones(3)]]
)
def test_what_is_no_kernel_is_refused(kernels):
    with pytest.raises(ValueError, match="blur kernel"):
        ShakeKernels(kernels)


def test_frames_are_averaged_in_linear_light():
    frames = np.zeros((4, 6, 7, 3), np.uint8)
    frames[1] = 255
    frames[2] = 30
    blurred, middle = average_frames(frames)
    expected = 255 * ((1 + (30 / 255) ** 2.2) / 4) ** (1 / 2.2)
    assert np.abs(blurred - expected).max() <= 1
    assert (middle == 30).all()
    with pytest.raises(ValueError, match="no frames"):
        average_frames(frames[:0])


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (1, 50), (37, 21)])
@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_any_size(size, config):
    clean = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for seed in range(6):
        blurred, mask = add_motion_blur(clean, np.random.default_rng(seed), config)
        assert blurred.shape == clean.shape
        assert mask.shape == size


SOFT = FocusConfig(soft=1, whole=1, grain=(0, 0))


def test_a_point_out_of_focus_is_a_disc_of_the_same_light():
    night = np.zeros((41, 41, 3), np.uint8)
    night[20, 20] = 255
    disc = linear(soften(night, np.random.default_rng(0), replace(SOFT, radius=(4, 4))))[..., 1]
    far = np.hypot(*(np.mgrid[:41, :41] - 20))
    assert disc[far <= 3.4].std() < 0.02 * disc.max()
    assert not disc[far >= 4.6].any()
    assert disc.sum() == pytest.approx(1, rel=0.03)  # levels are rounded


def test_even_ground_is_never_out_of_focus():
    even = np.full((40, 50, 3), (10, 128, 240), np.uint8)
    assert all((soften(even, np.random.default_rng(seed), SOFT) == even).all() for seed in range(5))


def test_one_region_is_out_of_focus_or_all_but_it(photos):
    clean = photos[0][100:260, 100:300]
    config = replace(SOFT, whole=0, radius=(4, 4))
    shares = [
        (soften(clean, np.random.default_rng(seed), config) == clean).all(axis=2).mean() for seed in range(16)
    ]
    assert min(shares) < 0.35 < 0.7 < max(shares)


def test_grain_is_sharp_where_the_picture_is_not():
    even = np.full((64, 64, 3), 128, np.uint8)
    grainy = soften(even, np.random.default_rng(0), replace(SOFT, grain=(2, 2)))
    assert grainy.std() == pytest.approx(2, rel=0.1)
    assert np.diff(grainy.astype(float), axis=1).std() == pytest.approx(2 * 2**0.5, rel=0.1)


def test_some_pictures_are_out_of_focus(photos):
    clean = photos[1][100:140, 100:140]
    soft = [(soften(clean, np.random.default_rng(seed)) != clean).any() for seed in range(60)]
    assert 12 < sum(soft) < 36
