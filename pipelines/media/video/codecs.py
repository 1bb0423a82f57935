"""Codecs that restored frames can be written in, and the one place to enter another.

The one of the source is kept where it can be written here and into the container.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from types import MappingProxyType
from typing import Literal, get_args

from av.codec import Codec, CodecContext
from av.codec.codec import UnknownCodecError, find_best_pix_fmt_of_list
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat

from pipelines.media.video.clip import FULL, ClipError, ClipFormat
from pipelines.media.video.containers import container_of

CodecName = Literal[
    "source", "h264", "hevc", "av1", "vp8", "vp9", "prores", "ffv1", "mpeg4", "mpeg2video", "mjpeg"
]

Preset = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
]
WORST = 51
"""The largest `crf`."""


@dataclass(frozen=True)
class EncodeConfig:
    """How clips are encoded."""

    codec: CodecName = "source"
    """Of restored clips; by default each keeps its own where it can be written, else gets its container's
    usual one, and the manifest says so."""
    crf: int = 18
    """Quality of the encoded video on H.264's scale: 0 is lossless, 18 looks it, 28 is small. HEVC gets 4
    more, AV1 half as much again, older codecs a quantizer of that quality; VP8 and VP9 take it as it is;
    ProRes, DNxHR and what is lossless do not ask."""
    preset: Preset = "veryfast"
    """x264's preset, x265's, and AV1's of about that pace: faster ones give larger files."""

    def __post_init__(self) -> None:
        for name, choice, choices in (("codec", self.codec, CodecName), ("preset", self.preset, Preset)):
            if choice not in get_args(choices):
                raise ValueError(f"{name} is one of {', '.join(get_args(choices))}, not {choice!r}")
        if not 0 <= self.crf <= WORST:
            raise ValueError(f"crf is 0 (lossless) to {WORST} (smallest), not {self.crf}")


Options = Callable[[EncodeConfig, ClipFormat], dict[str, str]]


@dataclass(frozen=True)
class Coder:
    """How one codec is written."""

    codec: str
    """FFmpeg's name of it."""
    encoder: str
    options: Options = lambda encode, format: {}
    even: bool = False
    """Whether chroma at half resolution needs even sides."""
    counts: bool = False
    """Whether it takes frames by number, at a usual rate: its own clock is too coarse for time stamps."""
    picky: bool = False
    """Whether it refuses sizes or rates."""
    narrowest: int = 0
    """Pixels of width, below which it must not be used."""
    lossless: bool = False
    full: bool = False
    """Whether its players take any samples for such of full range."""
    segment: str = "nut"
    """FFmpeg's format of runs; nut keeps any time base."""


SVT_PRESETS = MappingProxyType(dict(zip(get_args(Preset), "9988765432", strict=True)))
"""Those of about the same pace."""
os.environ.setdefault("SVT_LOG", "1")  # errors alone: it prints pages on every run


def _x264(encode: EncodeConfig, format: ClipFormat) -> dict[str, str]:
    extra = ":".join(
        f"{name}={value}"
        for name, value in (("mastering-display", format.mastering), ("cll", format.light))
        if value
    )
    options = {"crf": str(encode.crf), "preset": encode.preset}
    return options | {"x264-params": extra} if extra else options


def _x265(encode: EncodeConfig, format: ClipFormat) -> dict[str, str]:
    params = ["log-level=error", "bframes=0", "pools=1", "frame-threads=1"]
    params += ["lossless=1"] if encode.crf == 0 else []
    params += [f"master-display={format.mastering}"] if format.mastering else []
    params += [f"max-cll={format.light}"] if format.light else []
    return {"crf": str(min(encode.crf + 4, WORST)), "preset": encode.preset, "x265-params": ":".join(params)}


def _svt(encode: EncodeConfig, format: ClipFormat) -> dict[str, str]:
    crf = min(max(1, round(1.5 * encode.crf)), 63)
    return {"crf": str(crf), "preset": SVT_PRESETS[encode.preset], "svtav1-params": "lp=1"}


def _vpx(encode: EncodeConfig, format: ClipFormat) -> dict[str, str]:
    # Without hidden reference frames, packets and frames stay one to one.
    options = {"crf": str(encode.crf), "deadline": "good", "cpu-used": "4"}
    options |= {"auto-alt-ref": "0", "lag-in-frames": "0"}
    return options | ({"lossless": "1"} if encode.crf == 0 else {})


def _vp9(encode: EncodeConfig, format: ClipFormat) -> dict[str, str]:
    return {**_vpx(encode, format), "b": "0"}


def _vp8(encode: EncodeConfig, format: ClipFormat) -> dict[str, str]:
    # Its quality is one that a rate bounds: one that bounds nothing.
    return {**_vpx(encode, format), "crf": str(max(4, encode.crf)), "b": "200000000"}


def _quantizer(encode: EncodeConfig, format: ClipFormat) -> dict[str, str]:
    # Of H.264's 6 steps each double it; 18 is the finest that is of use.
    level = round(min(max(2.0, 2 * 2 ** ((encode.crf - 18) / 6)), 30))
    return {"qmin": str(level), "qmax": str(level + 1), "b": "100000000"}


PRORES = {"Proxy": "0", "LT": "1", "Standard": "2", "HQ": "3", "4444": "4", "XQ": "5", "4444 XQ": "5"}


def _prores(encode: EncodeConfig, format: ClipFormat) -> dict[str, str]:
    kept = PRORES.get(format.profile.removeprefix("ProRes ").strip()) if format.codec == "prores" else None
    fuller = "4" if format.alpha or "444" in format.pixels or format.is_rgb else "3"
    return {"profile": kept or fuller, "vendor": "apl0"}


def _dnxhr(encode: EncodeConfig, format: ClipFormat) -> dict[str, str]:
    full = "444" in format.pixels or format.is_rgb
    return {"profile": "dnxhr_444" if full else "dnxhr_hqx" if format.deep else "dnxhr_hq"}


H264 = Coder("h264", "libx264", _x264, even=True)
H264_RGB = Coder("h264", "libx264rgb", _x264)
# Of narrower frames x265 overwrites what is not its own.
HEVC = Coder("hevc", "libx265", _x265, even=True, picky=True, narrowest=64)
AV1 = Coder("av1", "libsvtav1", _svt, even=True, picky=True)
VP8 = Coder("vp8", "libvpx", _vp8)
VP9 = Coder("vp9", "libvpx-vp9", _vp9)
PRORES_422 = Coder("prores", "prores_ks", _prores, segment="mov")
DNXHR = Coder("dnxhd", "dnxhd", _dnxhr, picky=True, counts=True, segment="mov")
MPEG4 = Coder("mpeg4", "mpeg4", _quantizer, counts=True)
MPEG2 = Coder("mpeg2video", "mpeg2video", _quantizer, counts=True, picky=True)
MPEG1 = Coder("mpeg1video", "mpeg1video", _quantizer, counts=True, picky=True)
MJPEG = Coder("mjpeg", "mjpeg", _quantizer, full=True)
FLV1 = Coder("flv1", "flv", _quantizer, counts=True)
H263 = Coder("h263", "h263", _quantizer, counts=True, picky=True)
MSMPEG4 = Coder("msmpeg4v3", "msmpeg4", _quantizer, counts=True)
WMV1, WMV2 = (Coder(name, name, _quantizer, counts=True) for name in ("wmv1", "wmv2"))
FFV1 = Coder("ffv1", "ffv1", lambda encode, format: {"level": "3"}, lossless=True)
LOSSLESS = tuple(
    Coder(name, name, lossless=True, segment="mov" if name == "qtrle" else "nut")
    for name in ("huffyuv", "ffvhuff", "utvideo", "magicyuv", "png", "qtrle", "v210")
)

CODERS: Mapping[str, Coder] = MappingProxyType(
    {
        coder.codec: coder
        for coder in (
            H264, HEVC, AV1, VP8, VP9, PRORES_422, DNXHR, MPEG4, MPEG2, MPEG1, MJPEG, FLV1, H263, MSMPEG4,
            WMV1, WMV2, FFV1, *LOSSLESS,
        )
    }
)  # fmt: skip


def coder_of(format: ClipFormat, encode: EncodeConfig, height: int, width: int) -> Coder:
    """What writes a clip of such frames.

    Raises ClipError where its container cannot hold what is asked for, or nothing here writes that.
    """
    usual = container_of(format.suffix).codec
    if encode.codec != "source":
        refusal = _refusal(CODERS[encode.codec], format, height, width)
        if refusal:
            raise ClipError(f"{refusal}; --codec source keeps the clip's own, or else writes {usual}")
        return CODERS[encode.codec]
    refusals = []
    for coder in (*_own(format), CODERS[usual]):
        refusal = _refusal(coder, format, height, width)
        if not refusal:
            return coder
        refusals.append(refusal)
    told = "; ".join(dict.fromkeys(refusals))
    raise ClipError(f"{told}; name another by --codec, or convert the clip to another container first")


def _own(format: ClipFormat) -> tuple[Coder, ...]:
    """What keeps a clip as it is coded, the best first; none where that is not known here."""
    own = CODERS.get(format.codec)
    if own is None:
        return ()
    if own is H264 and format.is_rgb:
        return (H264_RGB,)
    return (own, FFV1) if own.lossless else (own,)


def _refusal(coder: Coder, format: ClipFormat, height: int, width: int) -> str:
    """Why a coder does not write such a clip; empty where it does."""
    if not container_of(format.suffix).holds(coder.codec):
        return f"{format.suffix} cannot hold {coder.codec}"
    if not _is_here(coder.encoder):
        return f"{format.suffix} cannot be written in {coder.codec}: this FFmpeg has no {coder.encoder}"
    if not _takes(coder, format, height, width):
        return f"{format.suffix} of {width}x{height} cannot be written in {coder.codec}"
    return ""


@cache
def _is_here(encoder: str) -> bool:
    try:
        Codec(encoder, "w")
    except UnknownCodecError:
        return False
    return True


def _takes(coder: Coder, format: ClipFormat, height: int, width: int) -> bool:
    if width < coder.narrowest:
        return False
    return not coder.picky or _opens(coder, format, height, width)


@cache
def _opens(coder: Coder, format: ClipFormat, height: int, width: int) -> bool:
    try:
        opened(coder, EncodeConfig(), format, height, width)
    except (FFmpegError, ValueError):
        return False
    return True


def as_written(coder: Coder, format: ClipFormat) -> ClipFormat:
    """The format that a coder writes of a clip's."""
    return replace(format, colour=replace(format.colour, range=FULL)) if coder.full else format


def opened(
    coder: Coder, encode: EncodeConfig, format: ClipFormat, height: int, width: int
) -> VideoCodecContext:
    """An encoder of frames of that size. Raises FFmpegError where it does not take them."""
    context = CodecContext.create(coder.encoder, "w")
    assert isinstance(context, VideoCodecContext)
    set_up(context, coder, encode, as_written(coder, format), height, width)
    context.open()
    step_back()
    return context


def set_up(
    context: VideoCodecContext,
    coder: Coder,
    encode: EncodeConfig,
    format: ClipFormat,
    height: int,
    width: int,
) -> None:
    """All that an encoder is told before its first frame."""
    context.width, context.height = width, height
    context.pix_fmt = pixels_of(coder, format, height, width)
    context.framerate = rate_of(coder, format)
    context.time_base = clock_of(coder, format)
    context.max_b_frames = 0
    context.thread_count = 1
    context.sample_aspect_ratio = format.aspect
    format.colour.put_on(context)
    context.options = coder.options(encode, format)


def rate_of(coder: Coder, format: ClipFormat) -> Fraction:
    """Frames a second: the clip's, or the nearest that the codec knows."""
    rates = [Fraction(int(rate.num), int(rate.den)) for rate in Codec(coder.encoder, "w").frame_rates or ()]
    return min(rates, key=lambda rate: abs(rate - format.rate)) if rates else format.rate


def clock_of(coder: Coder, format: ClipFormat) -> Fraction:
    """The time base of an encoder: the clip's, or that of its frames' numbers."""
    return 1 / rate_of(coder, format) if numbered(coder, format) else format.time_base


def numbered(coder: Coder, format: ClipFormat) -> bool:
    """Whether an encoder gets frames by number: a raw file has no times but by the rate in its headers."""
    return coder.counts or container_of(format.suffix).raw


def pixels_of(coder: Coder, format: ClipFormat, height: int, width: int) -> str:
    """The pixel format that loses least of the clip's."""
    known = _formats(coder.encoder) or (format.pixels,)
    if coder.even and (height % 2 or width % 2):
        known = tuple(name for name in known if not halved(name)) or known
    if format.pixels in known:
        return format.pixels
    best, _ = find_best_pix_fmt_of_list(known, format.pixels, has_alpha=format.alpha)
    return best.name if best else known[0]


def halved(pixels: str) -> bool:
    """Whether chroma has fewer samples than luma."""
    shape = VideoFormat(pixels, 16, 16)
    return not shape.is_rgb and (shape.chroma_width(), shape.chroma_height()) != (16, 16)


@cache
def _formats(encoder: str) -> tuple[str, ...]:
    # Semi-planar ones only cost; yuvj is yuv whose range is told otherwise.
    formats = [one.name for one in Codec(encoder, "w").video_formats or ()]
    return tuple(name for name in formats if not name.startswith(("nv", "yuvj", "monob", "pal", "ya")))


def step_back() -> None:
    """Take back what SVT-AV1 does where it runs as root, when it is opened: it puts its threads and the one
    that calls it before all else on the machine, for good (SCHED_FIFO), and others starve."""
    if not hasattr(os, "sched_setscheduler"):
        return
    for thread in map(int, os.listdir("/proc/self/task")):
        with suppress(OSError):  # it has ended
            if os.sched_getscheduler(thread) == os.SCHED_FIFO:
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
