import cv2
import numpy as np

from spair_core.degradations.branches import add_branches, draw_branches


def test_branches_hide_the_share_that_is_asked_for_and_leave_gaps():
    for coverage in (0.2, 0.5):
        hidden = draw_branches((180, 240), np.random.default_rng(1), coverage, (0.02, 0.06))
        assert hidden.shape == (180, 240)
        assert (hidden.min(), hidden.max()) == (0, 1)
        assert coverage <= hidden.mean() < coverage + 0.15  # the last limb may bring it above
        gaps, _ = cv2.connectedComponents((hidden < 0.5).astype(np.uint8), connectivity=4)
        assert gaps > 20


def test_some_clean_pictures_stand_behind_branches(photos):
    clean = photos[1][:96, :128]
    made = [add_branches(clean, np.random.default_rng(seed)) for seed in range(60)]
    behind = [one for one in made if (one != clean).any()]
    assert 4 < len(behind) < 25
    assert (add_branches(clean, np.random.default_rng(5)) == made[5]).all()
    darker = [np.mean(one.mean(2) < 90) for one in behind]
    assert np.mean(darker) > np.mean(clean.mean(2) < 90)
