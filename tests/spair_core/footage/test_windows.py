import cv2
import numpy as np
import pytest

from spair_core.footage import Reach, closest, windows

REACH = Reach()


def drive(photo, count, *, rate=30.0, start=0, top=0):
    """A photograph that glides past, with times in seconds."""
    frames = [np.roll(photo, -3 * k, axis=1)[top : top + 72, :128].copy() for k in range(count)]
    return [(pixels, start + k / rate) for k, pixels in enumerate(frames)]


def seen(frames, run=8, reach=REACH):
    """What each frame looks at, as numbers of the frames: its neighbours, and its beats."""
    number = {pixels.tobytes(): k for k, (pixels, _) in reversed(list(enumerate(frames)))}
    looked = []
    for window in windows(iter(frames), run, reach):
        named = [number[pixels.tobytes()] for pixels in window.pixels]
        looked += [
            ([named[k] for k in neighbours], [named[k] for k in beats])
            for neighbours, beats in zip(window.neighbours, window.beats, strict=True)
        ]
    return looked


@pytest.fixture(scope="module")
def photo(photos):
    return photos[2]


def test_every_frame_is_its_windows_own_once_and_in_order(photo):
    frames = drive(photo, 37)
    own = [window.pixels[k] for window in windows(iter(frames), 8, REACH) for k in window.own]
    assert len(own) == 37
    assert all((mine == pixels).all() for mine, (pixels, _) in zip(own, frames, strict=True))


@pytest.mark.parametrize("run", [1, 5, 16, 100])
def test_what_a_frame_sees_does_not_depend_on_the_runs(photo, run):
    frames = drive(photo, 45)
    assert seen(frames, run) == seen(frames, 7)


def test_two_neighbours_to_each_side_and_a_second_in_beats(photo):
    neighbours, beats = seen(drive(photo, 60))[30]
    assert neighbours == [28, 29, 31, 32]
    assert beats == [15, 20, 25, 30, 35, 40, 45]


def test_the_ends_of_a_clip_make_do_with_what_there_is(photo):
    looked = seen(drive(photo, 40))
    assert looked[0][0] == [1, 2]
    assert looked[0][1] == [0, 5, 10, 15]
    assert looked[39][0] == [37, 38]
    assert seen(drive(photo, 1)) == [([], [0])]
    assert list(windows(iter([]), 8, REACH)) == []


def test_seconds_count_and_not_frames(photo):
    assert seen(drive(photo, 80, rate=60))[40][0] == [36, 38, 42, 44]
    assert seen(drive(photo, 30, rate=12))[15][0] == [13, 14, 16, 17]
    assert seen(drive(photo, 30, rate=4))[15] == ([], [13, 14, 15, 16, 17])


def test_a_gap_in_time_is_not_reached_over(photo):
    frames = drive(photo, 20) + drive(photo, 20, start=5, top=1)
    looked = seen(frames)
    assert looked[19][0] == [17, 18]
    assert looked[20][0] == [21, 22]
    assert max(looked[19][1]) < 20 <= min(looked[20][1])


def test_variable_frame_rates(photo):
    times = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.12, 60))
    frames = [(pixels, float(t)) for (pixels, _), t in zip(drive(photo, 60), times, strict=True)]
    for k, (neighbours, beats) in enumerate(seen(frames)):
        assert all(abs(times[n] - times[k]) <= REACH.near for n in neighbours)
        assert all(abs(times[n] - times[k]) <= REACH.far for n in beats)
        assert (np.diff(times[sorted([k, *neighbours])]) >= REACH.apart - 1e-9).all()
        assert k not in neighbours


def test_a_frame_shown_twice_is_seen_once(photo):
    fast = drive(photo, 30, rate=60)
    # A camera of 15 frames a second in a container of 60: each frame four times, with a coder's faint noise.
    frames = [(fast[k // 4 * 4][0] + np.uint8(k % 4), t) for k, (_, t) in enumerate(fast)]
    for k, (neighbours, _) in enumerate(seen(frames)):
        looks = [n // 4 for n in neighbours]
        assert k // 4 not in looks
        assert len(set(looks)) == len(looks)


def test_a_frozen_picture_tells_nothing(photo):
    frozen = [(photo[:72, :128], k / 30) for k in range(40)]
    for window in windows(iter(frozen), 8, REACH):
        assert set(window.neighbours) == {()}
        assert all(len(beats) == 1 for beats in window.beats)


@pytest.mark.parametrize("cut", [1, 2, 20, 38])
def test_a_scene_ends_at_its_cut(photos, cut):
    frames = drive(photos[0], cut) + drive(photos[2], 40 - cut, start=cut / 30)
    for k, (neighbours, beats) in enumerate(seen(frames)):
        assert {n < cut for n in [*neighbours, *beats]} == {k < cut}
    assert seen(frames, 1) == seen(frames, 100)


def test_rain_in_which_no_two_frames_are_alike_is_no_cut(photos):
    """As heavy rain at night is, from its first frame on."""
    rng = np.random.default_rng(0)
    frames = [(rng.integers(0, 256, (72, 128, 3), dtype=np.uint8), k / 30) for k in range(12)]
    assert [neighbours for neighbours, _ in seen(frames)[:3]] == [[1, 2], [0, 2, 3], [0, 1, 3, 4]]


def test_rain_a_wiper_and_a_change_of_exposure_are_no_cuts(photo):
    rng = np.random.default_rng(0)
    frames = []
    for k, (pixels, t) in enumerate(drive(photo, 30)):
        rainy = cv2.resize(pixels, (512, 288)).astype(float)
        for column in rng.integers(0, 500, 80):
            rainy[:, column : column + 2] += 90
        rainy[:, 16 * k : 16 * k + 120] = 8
        rainy = np.minimum(rainy, 255)
        frames.append(((rainy * (0.6 if k > 15 else 1.0)).astype(np.uint8), t))
    assert seen(frames)[15][0] == [13, 14, 16, 17]


def test_the_window_of_one_frame_holds_what_it_needs_and_no_more(photo):
    frames = drive(photo, 40)
    window = list(windows(iter(frames), 8, REACH))[2]
    alone = window.at(3)
    assert len(alone.own) == 1
    assert (alone.pixels[alone.own[0]] == frames[19][0]).all()
    assert len(alone.pixels) == len({19, *seen(frames)[19][0], *seen(frames)[19][1]})
    for mine, theirs in ((alone.neighbours[0], window.neighbours[3]), (alone.beats[0], window.beats[3])):
        assert (alone.pixels[list(mine)] == window.pixels[list(theirs)]).all()


def test_no_more_frames_are_held_than_the_reach(photo):
    """Of a clip of any length at any rate: counted by what the stream keeps alive."""
    alive, most = set(), 0

    class Kept(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    def stream():
        nonlocal most
        for pixels, t in drive(photo, 400, rate=240):
            kept = pixels.view(Kept)
            alive.add(id(kept))
            most = max(most, len(alive))
            yield kept, t

    reach = Reach(most_frames=20)
    assert sum(len(window.own) for window in windows(stream(), 8, reach)) == 400
    assert most <= 2 * 20 + 2 * 16 + 8 + 10  # 16: how far those are that a run's frames are to agree with


def test_without_a_reach_a_run_is_its_frames(photo):
    runs = list(windows(iter(drive(photo, 20)), 8, None))
    assert [len(run.pixels) for run in runs] == [8, 8, 4]
    assert all(run.own == range(len(run.pixels)) and not any(run.neighbours) for run in runs)


def test_a_reach_must_make_sense():
    with pytest.raises(ValueError, match="apart"):
        Reach(near=0.01)


def test_deep_frames_look_at_the_same_as_those_of_eight_bits(photo):
    frames = drive(photo, 37)
    deep = [(pixels.astype(np.uint16) * 257, seconds) for pixels, seconds in frames]
    assert seen(deep) == seen(frames)
    for ours, theirs in zip(windows(iter(deep), 8, REACH), windows(iter(frames), 8, REACH), strict=True):
        assert ours.pixels.dtype == np.uint16
        assert (ours.shown.pixels == theirs.pixels).all()


def test_a_run_carries_those_that_its_frames_are_to_agree_with(photo):
    frames = drive(photo, 45)
    number = {pixels.tobytes(): k for k, (pixels, _) in enumerate(frames)}
    looked = seen(frames)
    for window in windows(iter(frames), 8, REACH):
        named = [number[pixels.tobytes()] for pixels in window.pixels]
        first, last = named[window.own.start], named[window.own.stop - 1]
        assert [named[one.place] for one in window.beside] == [
            k for k in (first - 2, first - 1, last + 1, last + 2) if 0 <= k < 45
        ]
        for one in window.beside:
            sees = [[named[k] for k in places] for places in (one.neighbours, one.beats)]
            assert sees == list(looked[named[one.place]])
        known = {*window.own, *(one.place for one in window.beside)}
        for place, neighbours in zip(window.own, window.neighbours, strict=True):
            for k in closest(place, neighbours):
                assert k in known
                assert {named.index(other) for other in closest(named[k], looked[named[k]][0])} <= known


@pytest.mark.parametrize("rate", [12.0, 30.0, 120.0])
@pytest.mark.parametrize("run", [1, 7])
def test_what_a_frame_beside_a_run_sees_is_what_it_sees_in_its_own(photo, rate, run):
    """At any rate, with frames that come twice and a cut."""
    frames = drive(photo, 60, rate=rate)
    frames[20] = (frames[19][0], frames[20][1])
    frames[40:] = [(255 - pixels[::-1], seconds) for pixels, seconds in frames[40:]]
    number: dict[bytes, list[int]] = {}
    for k, (pixels, _) in enumerate(frames):
        number.setdefault(pixels.tobytes(), []).append(k)
    own, beside = [], []
    for window in windows(iter(frames), run, REACH):
        named = [pixels.tobytes() for pixels in window.pixels]
        looks = zip(window.neighbours, window.beats, strict=True)
        own += [[[named[k] for k in places] for places in both] for both in looks]
        for place, *both in window.beside:
            beside.append((named[place], [[named[k] for k in places] for places in both]))
    assert len(beside) >= len(own) // run
    for name, sees in beside:
        assert any(sees == own[k] for k in number[name])
