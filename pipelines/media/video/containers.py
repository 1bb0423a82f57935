"""Containers of clips: what goes into each, and the one place to enter another."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import av
from av.error import FFmpegError, InvalidDataError


@dataclass(frozen=True)
class Container:
    """The files of some names, which FFmpeg reads and writes."""

    muxer: str
    """FFmpeg's name of what writes it."""
    suffixes: frozenset[str]
    """Endings of names, in lower case with their dot."""
    codec: str = "h264"
    """Of restored frames whose own codec cannot be written, or not into it."""
    codecs: frozenset[str] = frozenset()
    """Those that it holds, where FFmpeg does not say."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Of FFmpeg's muxer."""
    counts: bool = False
    """Whether it counts frames, at one rate, and holds no time stamps."""
    hides: bool = False
    """Whether it can hide what stands before the start (by an edit list); others would begin late."""
    clock: bool = False
    """Whether FFmpeg writes a track of its own for the time code that the video names."""
    headed: bool = False
    """Whether a codec's headers stand nowhere but before its pictures."""
    turns_back: bool = False
    """Whether its muxer goes back to more than the file's beginning: it cannot be written as it comes."""
    raw: bool = False
    """Whether it is nothing but the packets of one video track."""

    def holds(self, codec: str) -> bool:
        """Whether it takes the frames of a codec, by FFmpeg's name of it."""
        return codec in self.codecs if self.codecs else _begins(self.muxer, codec)


@cache
def _begins(muxer: str, codec: str) -> bool:
    """Whether a file with such a track can be begun: what FFmpeg lists of QuickTime's and Flash's muxers has
    codecs that these then refuse."""
    try:
        with av.open(io.BytesIO(), "w", format=muxer) as trial:
            trial.add_mux_stream(codec, rate=25, width=352, height=288)
            trial.start_encoding()
    except InvalidDataError:
        return True  # it asks for the codec's headers, which there are none of without frames
    except (FFmpegError, ValueError):
        return False
    return True


# The index in front, so that a clip plays while it downloads.
FAST_START = {"movflags": "+faststart"}
MP4 = Container("mp4", frozenset({".mp4", ".m4v"}), options=FAST_START, hides=True, clock=True)
FLASH_MP4 = Container("f4v", frozenset({".f4v"}), options=FAST_START, hides=True)
QUICKTIME = Container("mov", frozenset({".mov", ".qt"}), options=FAST_START, hides=True, clock=True)
PHONE = Container("3gp", frozenset({".3gp"}), options=FAST_START, hides=True)
PHONE_2 = Container("3g2", frozenset({".3g2"}), options=FAST_START, hides=True)
MATROSKA = Container("matroska", frozenset({".mkv"}))
# H.264 of others is shown late in it.
AVI = Container("avi", frozenset({".avi"}), "mpeg4", counts=True, turns_back=True)
WEBM = Container("webm", frozenset({".webm"}), "vp9")
# Times as they are: by default it begins 1.4 seconds later.
TRANSPORT = Container(
    "mpegts",
    frozenset({".ts", ".mts", ".m2ts", ".m2t"}),
    codecs=frozenset({"h264", "hevc", "mpeg2video", "mpeg1video", "mpeg4"}),
    options={"mpegts_copyts": "1"},
    headed=True,
)
PROGRAM = Container(
    "mpeg",
    frozenset({".mpg", ".mpeg"}),
    "mpeg2video",
    frozenset({"mpeg1video", "mpeg2video", "h264", "hevc"}),
    headed=True,
)
DVD = Container(
    "vob", frozenset({".vob"}), "mpeg2video", frozenset({"mpeg2video", "mpeg1video"}), headed=True
)
FLASH = Container("flv", frozenset({".flv"}))
WINDOWS = Container("asf", frozenset({".wmv", ".asf"}), "wmv2")
MOTION_JPEG = Container("mjpeg", frozenset({".mjpeg", ".mjpg"}), "mjpeg", frozenset({"mjpeg"}), raw=True)
RAW_H264 = Container("h264", frozenset({".h264", ".264"}), "h264", frozenset({"h264"}), headed=True, raw=True)
RAW_HEVC = Container(
    "hevc", frozenset({".hevc", ".h265", ".265"}), "hevc", frozenset({"hevc"}), headed=True, raw=True
)

CONTAINERS: tuple[Container, ...] = (
    MP4,
    FLASH_MP4,
    QUICKTIME,
    PHONE,
    PHONE_2,
    MATROSKA,
    AVI,
    WEBM,
    TRANSPORT,
    PROGRAM,
    DVD,
    FLASH,
    WINDOWS,
    MOTION_JPEG,
    RAW_H264,
    RAW_HEVC,
)


def container_of(suffix: str) -> Container:
    """The one whose clips end so, in any case. Raises KeyError."""
    return {ending: one for one in CONTAINERS for ending in one.suffixes}[suffix.lower()]
