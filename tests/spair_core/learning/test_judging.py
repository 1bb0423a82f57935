"""What weights make of what they have not learnt from, in the same weather for all."""

import numpy as np
import pytest

from spair_core import weights
from spair_core.degradations.crops import Example
from spair_core.learning import judging
from spair_core.learning.judging import JudgingConfig, Score
from spair_core.learning.pack import Clip, Pack, write_pack
from spair_core.metrics import psnr_y

SMALL = JudgingConfig(photographs=2, frames=2)


@pytest.fixture(scope="module")
def pack(photos):
    scene = photos[1][:96]
    frames = [np.ascontiguousarray(scene[:, k : k + 128]) for k in range(50)]
    some = tuple(np.ascontiguousarray(photo[:96, :128]) for photo in photos[:3])
    return Pack(some, (("rain", Example(some[0], some[1])),), (Clip(frames, 25.0),))


def drawn(pack, task="rain+raindrop", config=SMALL):
    return dict(judging.sets(pack, task, config))


def test_each_way_of_a_task_is_a_set_and_so_are_clean_ones(pack):
    joint, drops, blur = (drawn(pack, task) for task in ("rain+raindrop", "raindrop", "blur"))
    assert set(drops) < set(joint)
    assert not any("streaks" in name or "rain" in name for name in drops)
    assert set(blur) == {"photographs, clean", "photographs, blur", "drive 1, dry"}
    assert "pairs, rain" in joint
    for of in (joint, drops, blur):
        for name, examples in of.items():
            same = all(np.array_equal(one.degraded, one.clean) for one in examples)
            assert same == name.endswith(("clean", "dry")), name


def test_what_is_drawn_depends_on_the_seed_alone(pack):
    first, again = drawn(pack), drawn(pack)
    other = drawn(pack, config=JudgingConfig(2, 2, seed=1))
    assert list(first) == list(again) == list(other)
    for name, examples in first.items():
        pairs = [(one.shown.pixels, two.shown.pixels) for one, two in zip(examples, again[name], strict=True)]
        assert all(np.array_equal(one, two) for one, two in pairs), name
    wet = "drive 1, streaks"
    assert not np.array_equal(first[wet][0].degraded, other[wet][0].degraded)
    assert not np.array_equal(first[wet][0].degraded, first[wet][1].degraded)


def test_frames_are_evenly_spaced_and_have_those_around_them(pack):
    examples = drawn(pack)["drive 1, streaks and drops"]
    frames = pack.clips[0].frames
    assert [np.array_equal(one.clean, frames[k]) for one, k in zip(examples, (12, 37), strict=True)] == [
        True,
        True,
    ]
    window = examples[0].window
    assert len(window.neighbours[0]) == 4
    assert len(window.beats[0]) > 3
    assert np.array_equal(window.pixels[window.own[0]], examples[0].degraded)


def test_a_score_is_of_what_the_model_gives(pack, light):
    clean = drawn(pack)["photographs, clean"][0]
    assert judging.score(light, clean, psnr_y) == Score(60.0, 60.0, 1.0)
    wet = judging.score(light, drawn(pack)["photographs, heavy streaks"][0], psnr_y)
    assert wet.after > wet.before + 3
    assert wet.f1 > 0.7


@pytest.fixture(scope="module")
def light():
    return weights.load(weights.shipped("footage-light"))[0].eval()


def test_a_row_has_means_and_the_least_gain():
    scores = [[Score(20.0, 25.0, 0.5), Score(30.0, 29.0, 0.7)]]
    assert judging.row("rain", scores) == "| rain | 2 | 25.00 | 27.00 | -1.00 | 0.60 |"
    assert judging.head(["a", "b"]).splitlines()[0].count("|") == 10


def test_its_command_prints_a_row_a_set(pack, photos, tmp_path, capsys):
    from PIL import Image

    Image.fromarray(photos[0][:96, :128]).save(tmp_path / "one.png")
    write_pack(tmp_path / "held.zip", [tmp_path / "one.png"])
    arguments = [str(tmp_path / "held.zip"), "footage-light", "rain-light", "--task", "rain"]
    judging.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| photographs, clean",
        "| photographs, streaks",
        "| photographs, light streaks",
        "| photographs, heavy streaks",
        "| photographs, sparse rain",
    ]
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.zip", "footage-light"], "none.zip"),
        (["none.zip", "no-light"], "no-light: no such file, nor shipped weights: footage-light"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=told):
        judging.main(arguments)
