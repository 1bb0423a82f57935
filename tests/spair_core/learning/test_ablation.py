"""Networks that learn alike, each shown less than the next."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from spair_core.learning import Batch, ablation
from spair_core.learning.ablation import VARIANTS, AblationConfig, Seen
from spair_core.learning.pack import Clip, Pack, write_pack
from spair_core.learning.pool import batch_of
from spair_core.learning.single import started_from

SMALL = AblationConfig(windows=8, judged=2, localize=2, joint=1, batch=2, crop=32, window=64)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def drive(photos):
    scene = photos[1][:120]
    return Pack(clips=(Clip([np.ascontiguousarray(scene[:, k : k + 200]) for k in range(40)], 30.0),))


def test_what_is_not_seen_is_the_frame_itself():
    frame = torch.rand(1, 3, 4, 4)
    batch = Batch(frame, frame, frame[:, :1], torch.rand(1, 6, 4, 4))
    for seen in VARIANTS.values():
        aligned, fixed = seen.of(batch).references.split(3, dim=1)
        assert torch.equal(aligned, batch.references[:, :3] if seen.aligned else frame)
        assert torch.equal(fixed, batch.references[:, 3:] if seen.fixed else frame)
    assert len(set(VARIANTS.values())) == len(VARIANTS)


@pytest.mark.long
def test_all_are_judged_on_all(drive):
    table = ablation.ablate(drive, drive, "rain-light", SMALL, CPU)
    assert list(table) == list(VARIANTS)
    kinds = {f"{kind} {score}" for kind in ablation.JUDGED for score in ("f1", "marked", "gain")}
    assert all(set(scores) == kinds for scores in table.values())
    lines = ablation.shown(table).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == len(VARIANTS) + 2


@pytest.mark.long
def test_all_learn_from_the_same_crops(drive, monkeypatch):
    """Else it would be chance that is compared."""
    windows = ablation.drawn(drive, SMALL.drawing(*ablation.LEARNT), SMALL.windows)
    again = ablation.drawn(drive, SMALL.drawing(*ablation.LEARNT), SMALL.windows)
    assert torch.equal(windows, again)
    taken = []
    step = ablation.Learner.step

    def seen_too(learner, batch, rate):
        taken.append((batch.degraded, rate))
        return step(learner, batch, rate)

    monkeypatch.setattr(ablation.Learner, "step", seen_too)
    for seen in (Seen(), Seen(aligned=True, squeeze=True)):
        model = ablation.learn(seen, windows, "rain-light", SMALL, CPU)
        assert model.config.localizer.squeeze == seen.squeeze
    half = len(taken) // 2
    assert half == SMALL.localize + SMALL.joint
    for (one, rate), (other, same) in zip(taken[:half], taken[half:], strict=True):
        assert torch.equal(one, other)
        assert rate == same


def test_a_network_that_finds_all_and_mends_nothing_is_judged_so(drive):
    windows = ablation.drawn(drive, SMALL.drawing("rain", 0.0), 4, alone=0.0)
    batch = batch_of(windows, SMALL.drawing("rain", 0.0))
    model = started_from(None, "light", references=True, squeeze=False).eval()
    with torch.no_grad():
        model.localizer.head.bias.fill_(9.0)
        model.localizer.head.weight.zero_()
        for parameter in model.restorer.output.parameters():
            parameter.zero_()
    scores = ablation.judge(model, VARIANTS["x, r, s"], windows, SMALL, CPU)
    share = float(batch.mask.mean())
    assert scores["marked"] == 1
    assert scores["f1"] == pytest.approx(2 * share / (1 + share))
    assert scores["gain"] == pytest.approx(0)


@pytest.mark.parametrize("start", ["footage-light", "absent.safetensors"])
def test_weights_that_not_all_can_begin_with_are_refused_before_anything_is_drawn(drive, start, monkeypatch):
    monkeypatch.setattr(ablation, "read_pack", lambda path: drive)
    monkeypatch.setattr(ablation, "drawn", lambda *given, **more: pytest.fail("windows were drawn"))
    with pytest.raises(SystemExit, match=start):
        ablation.main(["drives", "--held-out", "others", "--device", "cpu", "--start-from", start])


@pytest.mark.long
def test_the_command_prints_a_table(drive, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ablation, "read_pack", lambda path: Pack() if path.name == "none" else drive)
    monkeypatch.setattr(ablation, "VARIANTS", {"x": Seen()})
    small = [f"--{field.name}={getattr(SMALL, field.name)}" for field in fields(AblationConfig)]
    ablation.main(["drives", "--held-out", "others", "--device", "cpu", "--start-from", "rain-light", *small])
    assert capsys.readouterr().out.splitlines()[-1].startswith("| x | ")
    with pytest.raises(SystemExit, match="a multiple of 8"):
        ablation.main(["drives", "--held-out", "others", "--crop", "20"])
    with pytest.raises(SystemExit, match="need clips of dry drives"):
        ablation.main(["drives", "--held-out", "none", "--device", "cpu"])
    monkeypatch.undo()
    write_pack(tmp_path / "stills", ())
    with pytest.raises(SystemExit, match="nothing: is no pack"):
        ablation.main([str(tmp_path / "stills"), "--held-out", str(tmp_path / "nothing")])
