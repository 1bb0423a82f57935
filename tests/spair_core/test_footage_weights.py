"""What the shipped weights for footage do in the cases that drives are full of."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from spair_core import weights
from spair_core.degradations.rain import LIGHT, RainConfig, rain_over
from spair_core.footage import Reach, windows
from spair_core.inference import restore_window
from spair_core.metrics import psnr_y

SIZE = (144, 192)
NOW = 16
"""Place in a clip of the frame that is looked at: half a second to both sides is known."""


@pytest.fixture(scope="module")
def model():
    return weights.load(weights.shipped("footage-light"))[0]


@pytest.fixture(scope="module")
def drive(photos):
    """33 frames of a scene that glides past by 5 pixels a frame."""
    scene = cv2.resize(photos[0], (450, 300), interpolation=cv2.INTER_AREA)
    return [np.ascontiguousarray(scene[90:234, 5 * k : 5 * k + 192]) for k in range(33)]


def restored(model, frames, place=NOW):
    (whole,) = windows(((frame, k / 30) for k, frame in enumerate(frames)), len(frames), Reach())
    result = restore_window(model, whole.at(place))
    return result.pixels[0], result.mask[0]


def clock(frame):
    cv2.putText(
        frame, "2026-11-27 08:31:07", (6, 136), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA
    )


def markings(frame):
    for foot in (40, 150):
        side = 8 * np.sign(96 - foot)
        corners = [(foot, 143), (foot + 12, 143), (foot + 4 * side + 4, 90), (foot + 4 * side, 90)]
        cv2.fillPoly(frame, [np.array(corners, np.int32)], (235, 235, 225), cv2.LINE_AA)


def bonnet(frame):
    cv2.ellipse(frame, (96, 160), (120, 44), 0, 0, 360, (45, 40, 60), -1, cv2.LINE_AA)


def logo(frame):
    cv2.circle(frame, (20, 20), 9, (220, 60, 40), -1, cv2.LINE_AA)
    cv2.putText(frame, "S", (16, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)


def sky(frame):
    frame[:70] = np.linspace((120, 170, 235), (190, 210, 235), 70)[:, None].round().astype(np.uint8)


@pytest.mark.parametrize("fixture", [clock, markings, bonnet, logo, sky])
def test_what_stands_dry_on_the_glass_is_no_drop(model, drive, fixture):
    frames = [frame.copy() for frame in drive]
    for frame in frames:
        fixture(frame)
    pixels, mask = restored(model, frames)
    stands = (frames[NOW] != drive[NOW]).any(axis=2)
    assert mask[stands].mean() < 0.02
    before, after = (frame[stands].astype(float).std() for frame in (frames[NOW], pixels))
    assert after >= 0.95 * before


def test_a_dry_drive_comes_back_bit_for_bit(model, drive):
    pixels, mask = restored(model, drive)
    assert (pixels == drive[NOW]).all()
    assert not mask.any()


def in_rain(frames, seed=0):
    family = replace(LIGHT, coverage=(0.1, 0.12), brightness=(0.25, 0.4), length=(14, 40))
    config = RainConfig(families=(family,), weights=(1.0,))
    return rain_over(frames, np.random.default_rng(seed), config)


def test_a_fast_bright_box_in_rain_leaves_nothing_where_it_was(model, drive):
    frames = [frame.copy() for frame in drive]
    for k, frame in enumerate(frames):
        frame[60:84, (40 * (k - NOW) + 90) % 400 :][:, :24] = (250, 240, 60)
    rainy = in_rain(frames)
    pixels, _ = restored(model, rainy)
    for old in (50, 130):  # one frame before and one after
        place = np.s_[60:84, old : old + 24]
        assert np.abs(pixels[place].astype(int) - frames[NOW][place]).mean() < 6
    assert psnr_y(pixels, frames[NOW]) > psnr_y(rainy[NOW], frames[NOW]) + 3.5


def test_a_wiper_beside_a_frame_does_not_show_in_it(model, drive):
    rainy = in_rain(drive)
    wiped = [frame.copy() for frame in rainy]
    cv2.fillPoly(
        wiped[NOW + 1], [np.array([(60, 143), (90, 143), (150, 0), (120, 0)], np.int32)], (15, 15, 18)
    )
    pixels, _ = restored(model, wiped)
    without, _ = restored(model, rainy)
    assert psnr_y(pixels, drive[NOW]) > psnr_y(without, drive[NOW]) - 0.5


@pytest.mark.parametrize("place", [8, 16, 20])
def test_a_car_that_stands_and_drives_off_is_restored(model, drive, place):
    frames = [drive[max(k - 16, 0)] for k in range(33)]
    rainy = in_rain(frames)
    pixels, _ = restored(model, rainy, place)
    assert psnr_y(pixels, frames[place]) > psnr_y(rainy[place], frames[place]) + 3.5
    dry, mask = restored(model, frames, place)
    assert psnr_y(dry, frames[place]) > 45
    assert mask.mean() < 0.01


@pytest.mark.long
def test_a_standing_scene_in_faint_noise_differs_at_joins_no_more_than_elsewhere(model, drive):
    rng = np.random.default_rng(1)
    noisy = [
        np.clip(drive[0] + rng.normal(0, 2, drive[0].shape), 0, 255).round().astype(np.uint8)
        for _ in range(24)
    ]
    shown = []
    for run in windows(((frame, k / 30) for k, frame in enumerate(noisy)), 8, Reach()):
        shown += list(restore_window(model, run).pixels.astype(int))
    steps = [np.abs(b - a).mean() for a, b in pairwise(shown)]
    assert max(steps[7], steps[15]) <= 1.1 * max(steps[:7] + steps[8:15] + steps[16:])
