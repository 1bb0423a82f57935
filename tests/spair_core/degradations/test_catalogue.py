"""What every degradation promises; a new entry is tested by being there."""

import numpy as np
import pytest

from spair_core.degradations.catalogue import DEGRADATIONS, degradation, measures, split_task
from spair_core.degradations.crops import Example, degrade
from spair_core.masks import mask_from_pair

PLACES = {"whole": np.s_[120:220, 200:320], "small": np.s_[100:117, 40:53]}


@pytest.fixture(params=DEGRADATIONS, ids=lambda one: one.name)
def entry(request):
    return request.param


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_the_generator_decides_everything(entry, photos, place):
    clean = photos[0][place]
    kept = clean.copy()
    for seed in range(4):
        (degraded, mask), (again, same) = (
            entry.draw(clean, np.random.default_rng(seed), 0.0, 0.05) for _ in range(2)
        )
        assert (degraded.dtype, degraded.shape) == (np.uint8, clean.shape)
        assert (mask.dtype, mask.shape) == (np.bool_, clean.shape[:2])
        assert (degraded == again).all()
        assert (mask == same).all()
        assert (clean == kept).all()


@pytest.mark.parametrize("threshold", [0.05, 0.15])
def test_what_is_marked_has_changed_by_more_than_the_threshold(entry, photos, threshold):
    """But not behind a veil, which is over all pixels, in no mask, and can take back what a streak adds."""
    clean = photos[0][PLACES["whole"]]
    made = [entry.draw(clean, np.random.default_rng(seed), 0.0, threshold) for seed in range(8)]
    bare = [(degraded, mask) for degraded, mask in made if (degraded == clean).all(axis=2).mean() > 0.001]
    assert all((mask <= mask_from_pair(degraded, clean, threshold)).all() for degraded, mask in bare)
    assert len(bare) > 3 or not bare  # where it changes every pixel, as fog does
    assert sum(mask.any() for _, mask in made) > 3


def test_the_dry_share_stays_as_it_is(entry, photos):
    clean = photos[0][PLACES["whole"]]
    for seed in range(3):
        degraded, mask = entry.draw(clean, np.random.default_rng(seed), 1.0, 0.05)
        assert (degraded == clean).all()
        assert not mask.any()


def test_training_finds_it_by_its_name(entry, photos):
    clean, rng = photos[1][:64, :64], np.random.default_rng(3)
    made = degrade(Example(None, clean), np.random.default_rng(3), entry.name, dry=0.0, threshold=0.1)
    clean = clean if entry.lookalike is None else entry.lookalike(clean, rng)
    degraded, mask = entry.draw(clean, rng, 0.0, 0.1)
    assert (made.clean == clean).all()
    assert (made.degraded == degraded).all()
    assert (made.mask == mask).all()
    assert measures(entry.name) == {entry.judged_on}


def test_what_looks_like_it_is_in_the_clean_picture_too(entry, photos):
    if entry.lookalike is None:
        pytest.skip(f"nothing is taken for {entry.name} on purpose")
    clean = photos[0][PLACES["whole"]]
    kept, changed = clean.copy(), 0
    for seed in range(60):
        made = degrade(Example(None, clean), np.random.default_rng(seed), entry.name, dry=1.0)
        assert (made.degraded == made.clean).all()
        assert not made.mask.any()
        assert (made.clean == entry.lookalike(clean, np.random.default_rng(seed))).all()
        changed += (made.clean != clean).any()
    assert (clean == kept).all()
    assert 5 < changed < 50


def test_names_are_told_apart(entry):
    assert [one.name for one in DEGRADATIONS].count(entry.name) == 1
    assert split_task(entry.name) == {entry.name}
    assert degradation(entry.name) is entry


def test_an_unknown_name_is_answered_with_what_there_is():
    *names, last = (one.name for one in DEGRADATIONS)
    with pytest.raises(ValueError, match=f"'snow'; ingest them with --task {', '.join(names)} or {last}$"):
        degradation("snow")


def test_joint_models_are_judged_on_all_that_they_take_away():
    assert measures("rain+raindrop") == {"Y"}
    assert measures("rain+shadow") == {"Y", "Lab"}
    assert measures("snow") == {"RGB"}
