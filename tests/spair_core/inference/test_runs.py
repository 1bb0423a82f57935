from dataclasses import replace

import numpy as np
import pytest
import torch

from spair_core import inference
from spair_core.footage import Reach, Window, closest, references, references_on, windows
from spair_core.inference import runs
from spair_core.network import Spair

CPU = torch.device("cpu")
SQUARE = np.s_[20:40, 30:60]


def noisy_drive(photo, count=20):
    rng = np.random.default_rng(0)
    frames = [np.roll(photo, -3 * k, axis=1)[:64, :96] for k in range(count)]
    return [
        (np.clip(f + rng.normal(0, 9, f.shape), 0, 255).astype(np.uint8), k / 30)
        for k, f in enumerate(frames)
    ]


def halting(frames):
    """The same with a frame that comes twice, one that is missing, and another scene."""
    again = [*frames[:6], (frames[5][0], frames[6][1]), *frames[7:9], *frames[10:14]]
    return again + [(255 - pixels[::-1], seconds) for pixels, seconds in frames[14:]]


def restored(model, frames, run):
    pieces = [inference.restore_window(model, window) for window in windows(iter(frames), run, Reach())]
    return tuple(np.concatenate(parts) for parts in zip(*((p.pixels, p.mask) for p in pieces), strict=True))


@pytest.mark.parametrize("change", [list, halting])
def test_a_clip_gives_the_same_pixels_whole_and_in_runs(footage_model, photos, change):
    frames = change(noisy_drive(photos[2]))
    whole, mask = restored(footage_model, frames, 100)
    assert len(whole) == len(frames)
    assert mask.any(axis=(1, 2)).all()  # all of them are led by others
    for run in (6, 1):
        assert (restored(footage_model, frames, run)[0] == whole).all()


def test_frames_go_through_beside_their_references(footage_model, photos):
    """And are led by their neighbours where something was found, so far and no farther."""
    (window,) = windows(iter(noisy_drive(photos[2])), 100, Reach())
    result = inference.restore_window(footage_model, window)
    led = 0
    for k, seen in enumerate(references(window)):
        alone = inference.restore(footage_model, window.pixels[k][None], references=seen[None])
        assert (alone.mask[0] == result.mask[k]).all()
        change = np.abs(alone.pixels[0].astype(int) - result.pixels[k]).max(axis=2)
        assert change.max() <= runs.WITHIN
        assert not change[~grown(result.mask[k])].any()
        led += change.any()
    assert led > 10
    still = inference.restore(footage_model, window.pixels[10][None])
    assert (still.pixels[0] != result.pixels[10]).any()


def grown(mask):
    padded = np.pad(mask, runs.RIM)
    return np.any([np.roll(padded, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)], axis=0)[
        runs.RIM : -runs.RIM, runs.RIM : -runs.RIM
    ]


def wrong_by(model, errors, monkeypatch, found=lambda k: True):
    """The model, which finds the square degraded and restores a frame wrong by so many levels there; frames
    are told by the levels of their first pixel."""
    forward = Spair.forward

    def marked(pictures, **keywords):
        output = forward(model, pictures, **keywords)
        number = round(float(pictures[0, 0, 0, 0]) * 255)
        mask = torch.zeros_like(output.mask)
        mask[:, :, *SQUARE] = found(number)
        return replace(output, restored=pictures + errors[number] / 255, mask=mask)

    monkeypatch.setattr(model, "forward", marked)
    monkeypatch.setattr(model, "config", replace(model.config, sure=0.0))
    return model


def standing(photo, count):
    """A scene before which the camera stands: what a restored pixel shows is only the error."""
    frames = []
    for k in range(count):
        frame = np.clip(photo[:64, :96], 40, 200).astype(np.uint8)
        frame[0, 0] = k
        frames.append(frame)
    neighbours = tuple(tuple(n for n in (k - 2, k - 1, k + 1, k + 2) if 0 <= n < count) for k in range(count))
    return Window(np.stack(frames), range(count), neighbours, ((),) * count)


def test_a_guess_gives_way_to_what_the_frames_around_show(footage_model, photos, monkeypatch):
    window = standing(photos[0], 6)
    model = wrong_by(footage_model, [-7, 5, -5, 8, 4, 10], monkeypatch)
    result = inference.restore_window(model, window)
    change = result.pixels[:, *SQUARE].astype(int) - window.pixels[:, *SQUARE]
    # The median of each frame's and its closest two, at the ends the two of one side: -5, -5, 5, 4, 8 and 8;
    # and that of these once more.
    assert np.median(change, axis=(1, 2, 3)).tolist() == [-5, -5, 4, 5, 8, 8]


def test_a_guess_is_led_so_far_and_no_farther(footage_model, photos, monkeypatch):
    window = standing(photos[0], 3)
    model = wrong_by(footage_model, [0, 50, 0], monkeypatch)
    result = inference.restore_window(model, window)
    change = result.pixels[1].astype(int) - window.pixels[1]
    assert set(change[SQUARE][4:-4, 4:-4].ravel()) == {50 - runs.WITHIN}


def test_a_frame_in_which_nothing_was_found_is_led_by_none(footage_model, photos, monkeypatch):
    window = standing(photos[0], 5)
    model = wrong_by(footage_model, [9, 9, 9, 9, 9], monkeypatch, found=lambda k: k != 2)
    result = inference.restore_window(model, window)
    assert (result.pixels[2] == window.pixels[2]).all()
    assert not result.mask[2].any()
    assert (result.pixels[1] != window.pixels[1]).any()


def test_who_does_not_know_all_that_leads_a_frame_leaves_it(footage_model, photos, monkeypatch):
    """Windows to learn from, and to judge by, hold neighbours that are not restored."""
    whole = standing(photos[0], 5)
    model = wrong_by(footage_model, [4, -5, 9, 3, -6], monkeypatch)
    result = inference.restore_window(model, whole.at(2))
    change = result.pixels[0, *SQUARE].astype(int) - whole.pixels[2, *SQUARE]
    assert set(change.ravel()) == {9}


def test_frames_of_sixteen_bit_agree_in_sixteen(footage_model, photos, monkeypatch):
    window = standing(photos[0], 5)
    model = wrong_by(footage_model, [4.25, -5.5, 9, 3.5, -6], monkeypatch)
    deep = replace(window, pixels=window.pixels.astype(np.uint16) * 257)
    result = inference.restore_window(model, deep)
    change = (result.pixels[:, *SQUARE].astype(int) - deep.pixels[:, *SQUARE]) / 257
    assert np.median(change, axis=(1, 2, 3)) == pytest.approx([4.25, 4.25, 3.5, 3.5, 3.5], abs=0.01)


def test_frames_beside_a_run_are_restored_only_where_they_are_needed(footage_model, photos, monkeypatch):
    (_, window, *_) = windows(iter(noisy_drive(photos[2])), 6, Reach())
    start, stop = window.own.start, window.own.stop
    assert [one.place for one in window.beside] == [start - 2, start - 1, stop, stop + 1]
    counted = []
    through = runs._through
    monkeypatch.setattr(runs, "_through", lambda model, *rest: counted.append(1) or through(model, *rest))
    inference.restore_window(footage_model, window)
    assert len(counted) == 5
    counted.clear()
    inference.restore_window(footage_model, window, min_degraded=4.0)  # spread as rain is, a third is enough
    assert len(counted) == 1


def test_what_leads_a_frame():
    assert closest(5, (2, 4, 6, 9)) == (4, 6)
    assert closest(5, (6, 9)) == (6, 9)
    assert closest(5, (2, 4)) == (2, 4)
    assert closest(5, (4, 6, 8)) == (4, 6)
    assert closest(5, (6,)) == (6,)
    assert closest(5, ()) == ()


def test_a_gpu_is_given_frames_in_batches_beside_references_of_its_own(footage_model, photos, monkeypatch):
    """What another device would be given, on a CPU."""
    (window,) = windows(iter(noisy_drive(photos[2], 12)), 100, Reach())
    given = []

    def nothing(model, pictures, beside, *_):
        given.append((pictures, beside))
        return pictures.permute(0, 2, 3, 1), torch.zeros(len(pictures), 64, 96).bool(), torch.tensor(True)

    monkeypatch.setattr(runs, "levels", nothing)
    monkeypatch.setattr(runs, "uploaded", lambda batches, device: map(torch.tensor, batches))
    monkeypatch.setattr(runs, "BATCH_PIXELS", 5 * 64 * 96)
    monkeypatch.setattr(runs, "references_on", lambda window, device: references_on(window, CPU))

    class OnGpu:
        config = footage_model.config

        def parameters(self):
            return iter([torch.zeros(1, device="meta")])

    inference.restore_window(OnGpu(), window)
    assert [len(pictures) for pictures, _ in given] == [5, 5, 2]
    assert [tuple(beside.shape) for _, beside in given] == [(5, 6, 64, 96), (5, 6, 64, 96), (2, 6, 64, 96)]
    seen = torch.cat([beside for _, beside in given])
    assert torch.equal(seen, references_on(window, CPU) / 255)
