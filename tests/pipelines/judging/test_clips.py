"""Footage, judged with and without truth, from clips and from folders of frames."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from jobs import evaluate
from pipelines.judging import clips
from pipelines.judging.clips import ClipResult, judge_clips
from pipelines.judging.evaluation import EvaluateConfig
from pipelines.media import NO_PIECE, Piece, packed
from pipelines.services.models import ResolvedModel
from spair_core import weights
from spair_core.footage import Window
from spair_core.images import encode_png
from spair_core.network import Spair
from tests.pipelines.media.test_clips import make_clip

FRAMES = 40


@pytest.fixture(scope="module")
def blind(tiny_config):
    """A model that takes references, finds nothing and so changes nothing."""
    config = replace(tiny_config, binarize=1.0, references=True)
    return ResolvedModel(
        "blind", "blind", weights.save(Spair(config), weights.ModelCard(config, "rain", 0.05))
    )


@pytest.fixture(scope="module")
def drives(photos, tmp_path_factory):
    """Pairs of clips and of folders of frames: a moving scene, and the same with blots that come and go."""
    root = tmp_path_factory.mktemp("drives")
    dry = [photos[0][40:88, 300 - 3 * k : 364 - 3 * k].copy() for k in range(FRAMES)]
    wet = [frame.copy() for frame in dry]
    for k, frame in enumerate(wet):
        frame[10 : 20 + 5 * (k % 2), 10:20] = 250
    for side, frames in (("input", wet), ("target", dry)):
        for k, frame in enumerate(frames):
            path = root / "frames" / side / "front" / f"{k:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(frame))
        (root / "clips" / side).mkdir(parents=True, exist_ok=True)
        make_clip(root / "clips" / side / "front.mp4", frames)
    return root


@pytest.mark.cluster
@pytest.mark.parametrize(("layout", "folder"), [("clip-pairs", "clips"), ("folders", "frames")])
def test_a_model_that_changes_nothing_scores_what_came_in(cluster, drives, blind, layout, folder):
    (result,) = judge_clips(EvaluateConfig((str(drives / folder),), layout=layout, footage=True), blind)
    assert (result.name, result.frames, result.rejected) == ("front", FRAMES, "")
    assert result.psnr_y == result.input_psnr_y < 40
    assert result.flicker == result.input_flicker > 1.1
    assert (result.density, result.flips, result.residue, result.mask_recall) == (0, 0, 1, 0)
    assert 0.8 < result.contrast < 1.2
    assert result.seconds_per_frame > 0


@pytest.mark.cluster
def test_without_truth_what_takes_one_is_left_open(cluster, drives, blind, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(clips.models, "resolve", lambda spec: blind)
    (drives / "clips" / "target" / "broken.mp4").write_bytes(b"no clip" * 99)
    out = tmp_path / "found.json"
    data = (str(drives / "clips" / "target"),)
    evaluate.main(EvaluateConfig(data, layout="clips", footage=True, limit=10, json=str(out)))
    broken, front = json.loads(out.read_text())
    assert broken["frames"] == 0
    assert "not a clip" in broken["rejected"]
    assert front["frames"] == 10
    assert front["psnr_y"] is front["contrast"] is front["input_flicker"] is None
    assert (front["flicker"], front["residue"]) == (1, None)
    lines = capsys.readouterr().out.splitlines()
    assert "rejected: " in lines[1]
    assert lines[2].split()[:3] == ["front", "10", "-"]


@pytest.mark.cluster
def test_what_cannot_be_judged_at_all_is_an_error(cluster, photos, blind, tmp_path):
    for side, count in (("input", 8), ("target", 5)):
        (tmp_path / side).mkdir()
        make_clip(tmp_path / side / "a.mp4", [photos[0][:48, :64]] * count)
    with pytest.raises(ValueError, match="a: its truth has fewer frames"):
        judge_clips(EvaluateConfig((str(tmp_path),), layout="clip-pairs", footage=True), blind)


def store(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def found(layout, *folders):
    return list(clips._clips(EvaluateConfig(tuple(map(str, folders)), layout=layout, footage=True)))


def test_clips_of_the_same_name_in_two_sets_are_two(tmp_path):
    sides = ("input", "target")
    store(tmp_path, *(f"{of}/{side}/a/{k}.png" for of in ("city", "night") for side in sides for k in (0, 1)))
    store(tmp_path, *(f"drives/{of}/{side}/a.mp4" for of in ("city", "night") for side in sides))
    frames = found("folders", tmp_path / "city", tmp_path / "night")
    whole = found("clip-pairs", tmp_path / "drives")
    assert [clip.name for clip in frames] == [clip.name for clip in whole] == ["city/a", "night/a"]
    for clip, of in zip(frames, ("city", "night"), strict=True):
        assert clip.seen == tuple(f"{tmp_path}/{of}/input/a/{k}.png" for k in (0, 1))
        assert clip.truth == tuple(f"{tmp_path}/{of}/target/a/{k}.png" for k in (0, 1))
    assert [clip.seen for clip in whole] == [
        (f"{tmp_path}/drives/{of}/input/a.mp4",) for of in ("city", "night")
    ]


def test_clips_are_told_apart_by_what_it_takes(tmp_path):
    store(tmp_path, *(f"one/{side}/{name}.png" for side in ("input", "target") for name in ("0", "one/0")))
    assert [clip.name for clip in found("folders", tmp_path / "one")] == ["one", "one/one"]
    for part in ("blur", "sharp"):
        store(tmp_path, *(f"{copy}/GoPro/test/a/{part}/0.png" for copy in "xy"))
    copies = found("gopro", tmp_path / "x", tmp_path / "y")
    assert [clip.name for clip in copies] == [f"{tmp_path}/{copy}/GoPro/test/a/sharp" for copy in "xy"]


def test_a_folder_named_twice_is_judged_once(tmp_path):
    store(tmp_path, *(f"all/city/{side}/a/{k}.png" for side in ("input", "target") for k in (0, 1)))
    (clip,) = found("folders", tmp_path / "all", tmp_path / "all" / "city")
    assert (clip.name, len(clip.seen)) == ("a", 2)


def test_a_run_that_cannot_be_judged_is_its_clips_reason():
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    row = {**NO_PIECE, **packed(Piece(Window.alone(frames), None)), "name": "tiny", "error": "", "seconds": 1}
    row |= {"restored": frames.tobytes(), "found": bytes(4 * 64), "truth": frames.tobytes()}
    result = clips._summed("tiny", [clips._judged(row, 0.05)])
    assert (result.frames, math.isnan(result.psnr_y)) == (0, True)
    assert result.rejected == "it could not be judged: SSIM needs at least 11x11 pixels, not 8x8"


def test_means_weigh_by_what_they_are_means_of():
    def row(frames, psnr, error=""):
        blank = {f"{part}_{name}": 0.0 for name in clips.MEASURES for part in ("sum", "weight")}
        return {
            "error": error,
            "frames": frames,
            **blank,
            "sum_psnr_y": psnr * frames,
            "weight_psnr_y": frames,
        }

    result = clips._summed("a", [row(30, 30.0), row(10, 34.0), row(0, 0.0, "cut short")])
    assert (result.psnr_y, result.frames, result.rejected) == (31.0, 40, "cut short")
    assert math.isnan(result.contrast)
    assert "cut short" in clips.table([result])
    assert ClipResult("b", 0).to_dict()["flicker"] is None


def test_footage_has_a_table_of_its_own():
    with pytest.raises(ValueError, match="footage has a table of its own"):
        EvaluateConfig(("x",), footage=True, paper=True)
    with pytest.raises(ValueError, match="frame_rate"):
        EvaluateConfig(("x",), frame_rate=0)


def test_frames_of_a_folder_have_their_times(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(encode_png(np.full((8, 9, 3), k, np.uint8)))
    uris = [str(tmp_path / f"{k}.png") for k in range(3)]
    frames = list(clips._frames(uris, str(tmp_path), 10.0))
    assert [seconds for _, seconds in frames] == [0, 0.1, 0.2]
    assert [int(pixels[0, 0, 0]) for pixels, _ in frames] == [0, 1, 2]
