import copy
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from spair_core import inference
from spair_core.footage import Window
from spair_core.inference import restoring
from spair_core.network import Spair


def test_a_batch_of_pictures(model, photos):
    pixels = np.stack([photos[0][:50, :70], photos[1][:50, :70]])
    restored = inference.restore(model, pixels)
    assert restored.pixels.shape == pixels.shape
    assert restored.pixels.dtype == np.uint8
    assert restored.mask.shape == pixels.shape[:3]


def test_other_arrays_are_refused(model):
    with pytest.raises(ValueError, match="uint8"):
        inference.restore(model, np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="uint8"):
        inference.restore(model, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="at least"):
        inference.restore(model, np.zeros((1, 8, 8, 3), np.uint8), tile=8)


def marking(model, where):
    """The model with a mask of ours, and corrections of 40 levels everywhere."""
    forward = Spair.forward

    def marked(pictures, **keywords):
        output = forward(model, pictures, **keywords)
        mask = torch.zeros_like(output.mask)
        mask[:, :, where[0], where[1]] = True
        return replace(output, restored=pictures - 40 / 255, mask=mask)

    return marked


def test_what_is_not_near_the_mask_comes_back_bit_for_bit(model, photos, monkeypatch):
    pixels = np.full((1, 60, 80, 3), 100, np.uint8)
    monkeypatch.setattr(model, "forward", marking(model, (slice(20, 30), slice(30, 40))))
    restored = inference.restore(model, pixels)
    changed = (restored.pixels != pixels).any(axis=3)[0]
    assert (restored.pixels[changed[None]] == 60).all()
    near = np.zeros((60, 80), bool)
    near[20 - restoring.NEAR : 30 + restoring.NEAR, 30 - restoring.NEAR : 40 + restoring.NEAR] = True
    assert (changed == near).all()


def test_too_little_found_is_nothing_found(model, monkeypatch):
    pixels = np.full((1, 100, 100, 3), 100, np.uint8)
    monkeypatch.setattr(model, "forward", marking(model, (slice(0, 3), slice(0, 4))))
    assert inference.restore(model, pixels, min_degraded=0.0012).mask.sum() == 12
    passed = inference.restore(model, pixels, min_degraded=0.0013)
    assert not passed.mask.any()
    assert (passed.pixels == pixels).all()


@pytest.mark.parametrize(
    ("where", "least"),
    [
        ((slice(5, 100, 25), slice(5, 100, 25)), 0.0048),
        ((slice(40, 44), slice(40, 44)), 0.0016),
        ((slice(40, 41), slice(20, 36)), 0.0016),
    ],
    ids=["all over it", "in one place", "in a row"],
)
def test_of_what_is_spread_as_rain_is_a_third_is_enough(model, monkeypatch, where, least):
    pixels = np.full((1, 100, 100, 3), 100, np.uint8)
    monkeypatch.setattr(model, "forward", marking(model, where))
    assert inference.restore(model, pixels, min_degraded=least).mask.sum() == 16
    assert not inference.restore(model, pixels, min_degraded=least * 1.01).mask.any()


def test_each_picture_of_several_is_held_against_its_own_spread():
    changed = torch.zeros(2, 1, 100, 100)
    changed[0, 0, 5::25, 5::25] = changed[1, 0, :4, :4] = 1
    assert restoring._enough(changed, 0.004).flatten().tolist() == [True, False]


@pytest.mark.parametrize("tile", [1024, 128])
@pytest.mark.parametrize(("sure", "passed"), [(0.0, False), (0.019, False), (0.021, True)])
def test_doubt_about_all_of_a_picture_is_nothing_found(model, monkeypatch, tile, sure, passed):
    """Of what is found here in rows 20 to 120, a fiftieth is surely degraded, all in one corner."""
    pixels = np.full((1, 160, 150, 3), 100, np.uint8)
    pixels[:, 20:120] = 101
    pixels[:, 20:50, :10] = 102
    forward = Spair.forward

    def doubtful(seen, **keywords):
        output = forward(model, seen, **keywords)
        level = (seen[:, :1] * 255).round()
        logits = torch.where(level == 100, -9.0, torch.where(level == 101, 0.5, 2.0))
        return replace(output, restored=seen - 40 / 255, logits=logits, mask=logits > 0)

    monkeypatch.setattr(model, "forward", doubtful)
    monkeypatch.setattr(model, "config", replace(model.config, sure=sure))
    restored = inference.restore(model, pixels, tile=tile)
    assert restored.mask.sum() == (0 if passed else 100 * 150)
    assert (restored.pixels == pixels).all() == passed


def test_each_picture_is_trusted_by_itself(model, monkeypatch):
    monkeypatch.setattr(model, "config", replace(model.config, sure=0.25))
    found = torch.ones(3, 1, 2, 4, dtype=torch.bool)
    sure = found.clone()
    sure[0, 0, 0, :] = sure[0, 0, 1, 0] = sure[1, 0, :, :3] = False
    assert model.trusted(found, sure).sum((1, 2, 3)).tolist() == [8, 8, 8]
    sure[1, 0, 0, 3] = False
    assert model.trusted(found, sure).sum((1, 2, 3)).tolist() == [8, 0, 8]


def test_a_mask_without_a_change_that_one_sees_is_nothing_found(model, monkeypatch):
    pixels = np.full((1, 40, 40, 3), 100, np.uint8)
    marked = marking(model, (slice(0, 30), slice(0, 30)))
    faint = lambda pictures, **k: replace(marked(pictures, **k), restored=pictures + 1 / 255)  # noqa: E731
    monkeypatch.setattr(model, "forward", faint)
    passed = inference.restore(model, pixels)
    assert not passed.mask.any()
    assert (passed.pixels == pixels).all()


def test_sixteen_bit_are_restored_in_sixteen(photos, model):
    """As their eight upper bits are, but finer; and untouched ones keep all their bits."""
    coarse = photos[0][:64, :96]
    fine = np.random.default_rng(0).integers(-100, 100, coarse.shape)
    deep = np.clip(coarse.astype(int) * 257 + fine, 0, 65535).astype(np.uint16)
    result, eight = inference.restore(model, deep[None]), inference.restore(model, coarse[None])
    assert result.pixels.dtype == np.uint16
    assert np.abs(result.pixels / 257 - eight.pixels).max() < 3
    far = cv2.dilate(result.mask[0].astype(np.uint8), np.ones((9, 9))) == 0
    assert (result.pixels[0][far] == deep[far]).all()
    assert len(np.unique(result.pixels % 257)) > 100
    window = inference.restore_window(model, Window.alone(deep[None]))
    assert (window.pixels == result.pixels).all()


def test_what_is_no_number_is_an_error_and_no_clean_picture(model, photos):
    damaged = copy.deepcopy(model)
    with torch.no_grad():
        next(damaged.restorer.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        inference.restore(damaged, photos[0][None, :64, :64])
