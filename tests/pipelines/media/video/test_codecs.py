"""The codec of the source where it can be written, another where it is asked for or must be."""

import os
from dataclasses import replace

import pytest

from pipelines.media import EncodeConfig, Encoding, MediumError, clips
from pipelines.media.video import codecs
from tests.pipelines.media.video.samples import filmed, off, restored, video

OWN = [
    (".mp4", "libx265", "yuv420p", {}),
    (".mp4", "libsvtav1", "yuv420p", {}),
    (".mp4", "mpeg4", "yuv420p", {}),
    (".mp4", "libvpx-vp9", "yuv420p", {}),
    (".mov", "prores_ks", "yuv422p10le", {}),
    (".mov", "mjpeg", "yuvj422p", {"color_range": 2}),
    (".mov", "qtrle", "rgb24", {}),
    (".mov", "png", "rgb24", {}),
    (".mov", "h263", "yuv420p", {"size": (96, 128)}),
    (".mkv", "ffv1", "gbrp10le", {}),
    (".mkv", "libvpx", "yuv420p", {}),
    (".mkv", "mpeg2video", "yuv422p", {}),
    (".avi", "huffyuv", "rgb24", {}),
    (".avi", "utvideo", "gbrp", {}),
    (".avi", "libx264", "yuv420p", {"options": {"bf": "0"}}),
    (".avi", "msmpeg4", "yuv420p", {}),
    (".webm", "libvpx", "yuv420p", {}),
    (".flv", "flv", "yuv420p", {}),
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("suffix", "codec", "pixels", "settings"), OWN, ids=[f"{s}-{c}" for s, c, _, _ in OWN]
)
def test_a_clip_keeps_its_codec(tmp_path, suffix, codec, pixels, settings):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    filmed(source, codec=codec, pixels=pixels, frames=34, **settings)
    _, notes = restored(source, target)
    before, after = video(source), video(target)
    for name in ("codec", "pixels", "times", "rate", "tag"):
        assert after[name] == before[name], name
    assert notes == []
    assert off(source, target) < 3


@pytest.mark.parametrize(
    ("suffix", "codec", "usual"), [(".avi", "snow", "mpeg4"), (".mp4", "jpeg2000", "h264")]
)
def test_what_cannot_be_written_gets_the_containers_usual_codec(tmp_path, suffix, codec, usual):
    source, target = filmed(tmp_path / f"in{suffix}", codec=codec), tmp_path / f"out{suffix}"
    _, notes = restored(source, target)
    assert video(target)["codec"] == usual
    assert notes == [f"its video is in {usual} now, no longer in {video(source)['codec']}"]


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9", "mpeg4"])
def test_a_codec_that_is_asked_for(tmp_path, codec):
    source, target = filmed(tmp_path / "in.mp4", codec="mpeg2video"), tmp_path / "out.mp4"
    _, notes = restored(source, target, codec=codec)
    assert video(target)["codec"] == codec
    assert notes == [f"its video is in {codec} now, no longer in mpeg2video"]
    assert off(source, target) < 3


def test_prores_keeps_its_profile_and_hevc_the_letters_that_apple_shows(tmp_path):
    source = filmed(tmp_path / "in.mov", codec="prores_ks", pixels="yuv422p10le", options={"profile": "lt"})
    restored(source, tmp_path / "out.mov")
    assert video(tmp_path / "out.mov")["tag"] == video(source)["tag"] == "apcs"
    restored(source, tmp_path / "hevc.mov", codec="hevc")
    assert video(tmp_path / "hevc.mov")["tag"] == "hvc1"


def test_smaller_files_of_a_lower_quality(tmp_path):
    for codec in ("h264", "hevc", "av1", "vp9", "mpeg4", "mjpeg"):
        source = filmed(tmp_path / "in.mp4", frames=8, size=(96, 128))
        sizes = []
        for crf in (18, 34):
            restored(source, tmp_path / "out.mp4", codec=codec, crf=crf)
            sizes.append((tmp_path / "out.mp4").stat().st_size)
        assert sizes[0] > sizes[1], codec


def test_hevc_of_frames_too_narrow_for_its_encoder(tmp_path):
    source = filmed(tmp_path / "in.mp4", size=(48, 48))
    with pytest.raises(ValueError, match="48x48 cannot be written in hevc; --codec source"):
        restored(source, tmp_path / "out.mp4", codec="hevc")


@pytest.fixture
def lacking(monkeypatch):
    """A build of FFmpeg without an encoder of H.264."""
    without = replace(codecs.H264, encoder="libx264_that_is_not_here")
    monkeypatch.setattr(codecs, "CODERS", {**codecs.CODERS, "h264": without})


def test_a_codec_that_has_no_encoder_here_is_told_before_the_first_frames(tmp_path, lacking):
    source = filmed(tmp_path / "in.mp4", codec="mpeg4")
    told = r"\.mp4 cannot be written in h264: this FFmpeg has no libx264_that_is_not_here; --codec source"
    with pytest.raises(MediumError, match=told):
        next(clips.read(source, None, Encoding(clips=EncodeConfig(codec="h264"))))
    assert next(clips.read(source, None, Encoding())).window.pixels.any()


def test_a_clips_own_codec_that_has_no_encoder_here_gives_way_where_another_goes(tmp_path, lacking):
    source, target = filmed(tmp_path / "in.avi", options={"bf": "0"}), tmp_path / "out.avi"
    _, notes = restored(source, target)
    assert notes == ["its video is in mpeg4 now, no longer in h264"]
    with pytest.raises(MediumError, match=r"\.mp4 cannot be written in h264: .*; name another by --codec"):
        next(clips.read(filmed(tmp_path / "in.mp4"), None, Encoding()))


def test_a_clip_that_nothing_here_writes_is_told_before_the_first_frames(tmp_path):
    """H.264 under a name of HEVC's, too narrow for that."""
    filmed(tmp_path / "in.h264", size=(48, 48)).rename(tmp_path / "in.hevc")
    told = r"\.hevc cannot hold h264; \.hevc of 48x48 cannot be written in hevc; name another by --codec"
    with pytest.raises(MediumError, match=told):
        next(clips.read(tmp_path / "in.hevc", None, Encoding()))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"codec": "divx"}, "codec is one of source, h264"),
        ({"preset": "quick"}, "preset is one of ultrafast, .* not 'quick'"),
        ({"crf": 52}, "crf is 0 .* to 51 .* not 52"),
        ({"crf": -1}, "crf is 0"),
    ],
)
def test_what_no_encoder_takes_is_refused_before_any_work(wrong, told):
    with pytest.raises(ValueError, match=told):
        EncodeConfig(**wrong)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux tells how processes are scheduled")
def test_no_encoder_puts_its_process_before_all_others(tmp_path):
    source = filmed(tmp_path / "in.mp4")
    restored(source, tmp_path / "out.mp4", codec="av1", preset="ultrafast")
    assert {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")} == {
        os.SCHED_OTHER
    }
