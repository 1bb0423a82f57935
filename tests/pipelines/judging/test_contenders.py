"""The actor that shows several models one picture."""

import json

import numpy as np
import pytest

from pipelines.judging import comparison, contenders
from pipelines.judging.contenders import Look, picture_row
from pipelines.services.quarantine import Quarantine
from spair_core.footage import Window


def shares(pixels, looks):
    return {"shares": [float(look.mask.mean()) for look in looks]}, b""


@pytest.mark.cluster
def test_a_picture_that_fails_costs_only_itself(cluster, tiny_weights, photos):
    actor = contenders._Contenders([tiny_weights, tiny_weights], shares, 1024, Quarantine())
    row = picture_row("a", Window.alone(photos[0][None, :40, :40]))
    good = actor(row)
    assert good["error"] == ""
    assert len(json.loads(good["measured"])["shares"]) == 2
    assert actor(picture_row("b", error="cut short"))["error"] == "cut short"
    actor.models[1].forward = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of memory"))
    failed = actor(row)
    assert "out of memory" in failed["error"]
    actor.models[1].forward = lambda *_, **__: {}["x"]
    assert "unforeseen KeyError: 'x'" in actor(row)["error"]
    assert failed["measured"] == "{}"


def test_only_what_may_be_among_the_largest_is_drawn():
    measure = comparison._Differences(panels=2)
    picture, mask = np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), bool)

    def drawn(difference):
        looks = [Look(picture, mask, 1.0), Look(picture + np.uint8(difference), mask, 1.0)]
        values, panel = measure(picture, looks)
        assert values["difference"] == difference
        return bool(panel)

    assert [drawn(value) for value in (0, 3, 2, 1, 5, 2, 4, 9)] == [
        *(False, True, True, False),
        *(True, False, True, True),
    ]
    assert not comparison._Differences(panels=0)(picture, [Look(picture, mask, 1.0)] * 2)[1]
