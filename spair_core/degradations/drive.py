"""What a drive adds to its weather: what passes or stands dry on the glass, wipers, exposure, noise, coding.

Degraded footage to learn from is made of windows of frames. Streaks are new in each frame and drops the
same in all; lane markings, the bonnet and a burned-in clock stand still just as drops do, and the bars of
a front that passes are elsewhere in each frame just as streaks are: all these are to be left alone.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from spair_core.degradations.degradation import Over, Pixels
from spair_core.degradations.lookalikes import FrontConfig, pass_front
from spair_core.footage import Window
from spair_core.masks import mask_from_pair

Floats = NDArray[np.float32]


JPEG_QUALITY = 88
"""Taken where H.264 has CRF 18; by eye, the two were not measured against one another."""


@dataclass(frozen=True)
class DriveConfig:
    """How often a drive has what."""

    front: FrontConfig = field(default_factory=FrontConfig)
    """What stands beside the road."""
    fixtures: float = 0.45
    """Share with dry things that stand still on the glass,"""
    most_fixtures: int = 3
    """so many of them."""
    night: float = 0.15
    """Share made darker."""
    exposures: float = 0.2
    """Share whose exposure wavers."""
    noise: float = 0.3
    """Share with a sensor's noise."""
    coded: float = 0.45
    """Share that went through H.264."""
    wiper: float = 0.06
    """Share in which a wiper passes before or after the frame."""
    one_sided: float = 0.15
    """Share at an end of their clip, with frames on one side only."""


def degrade_window(
    window: Window,
    over: Over | None,
    rng: np.random.Generator,
    threshold: float,
    config: DriveConfig | None = None,
) -> tuple[Window, Pixels, NDArray[np.bool_]]:
    """The window of one clean frame -> the same degraded, the clean frame, and its mask bool [H, W].

    `over` is the weather; None leaves the drive dry. Noise and coding are in both frames of the pair and in
    no mask. The generator's state decides everything.
    """
    config = config or DriveConfig()
    here = window.own[0]
    passing = pass_front(list(window.pixels), _times(window), rng, config.front)
    clean = _furnished(passing, rng, config)
    degraded = over(clean, rng) if over else clean
    mask = mask_from_pair(degraded[here], clean[here], threshold)
    degraded, recorded = _recorded(degraded, clean, rng, config)
    truth = recorded[here]
    if rng.random() < config.wiper and len(degraded) > 1:
        place = int(rng.choice([k for k in range(len(degraded)) if k != here]))
        degraded[place] = _wiped(degraded[place], rng)
    beside = replace(window, pixels=np.stack(degraded))
    return (_one_sided(beside, rng) if rng.random() < config.one_sided else beside), truth, mask


def _times(window: Window) -> list[float]:
    """When frames are seen, in frames from the window's own, as `Reach` takes them from 30 a second: two on
    either side, then every fifth."""
    places = [k - window.own[0] for k in range(len(window.pixels))]
    return [place if abs(place) <= 2 else 5 * (place - 2 * np.sign(place)) for place in places]


def _furnished(frames: list[Pixels], rng: np.random.Generator, config: DriveConfig) -> list[Pixels]:
    if rng.random() < config.night:
        darker = (255 * (np.arange(256) / 255) ** rng.uniform(1.3, 2.5)).astype(np.uint8)
        frames = [darker[frame] for frame in frames]
    if rng.random() < config.exposures:
        frames = [_scaled(frame, 1 + rng.normal(0, 0.03)) for frame in frames]
    if rng.random() < config.fixtures:
        for _ in range(int(rng.integers(1, config.most_fixtures + 1))):
            cover, colour = draw_fixture(frames[0].shape[:2], rng)
            frames = [(frame * (1 - cover) + colour * cover).round().astype(np.uint8) for frame in frames]
    return frames


def _scaled(frame: Pixels, gain: float) -> Pixels:
    return np.asarray(cv2.convertScaleAbs(frame, alpha=gain), dtype=np.uint8)


def draw_fixture(size: tuple[int, int], rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Something dry that stands still before the camera: cover [H, W, 1] in [0, 1] and colour [H, W, 3]."""
    kinds = (_marking, _clock, _bonnet, _logo, _frame)
    draw = kinds[rng.choice(len(kinds), p=(0.35, 0.3, 0.15, 0.1, 0.1))]
    cover, colour = draw(size, rng)
    return cover[..., None].astype(np.float32), np.broadcast_to(colour, (*size, 3)).astype(np.float32)


Fixture = tuple[NDArray, NDArray]


def _marking(size: tuple[int, int], rng: np.random.Generator) -> Fixture:
    """Lane markings, straight towards a vanishing point: at speed they stand still."""
    height, width = size
    drawn = np.zeros((2 * height, 2 * width), np.uint8)
    vanishing = np.array([rng.uniform(0, 2 * width), rng.uniform(-height, 0.6 * height)])
    for _ in range(int(rng.integers(1, 4))):
        foot, wide = rng.uniform(-width, 3 * width), rng.uniform(4, 36)
        sides = [np.array([foot + side * wide / 2, 2 * height]) - vanishing for side in (-1, 1)]
        for start, stop in _dashes(rng):
            corners = [
                vanishing + way * sides[k] for way, k in ((start, 0), (stop, 0), (stop, 1), (start, 1))
            ]
            cv2.fillPoly(drawn, [np.array(corners, np.int32)], 255)
    small = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    cover = cv2.GaussianBlur(small, (0, 0), rng.uniform(0.4, 1.2)) / 255 * rng.uniform(0.5, 1)
    paint = np.array([240, 240, 235] if rng.random() < 0.7 else [230, 190, 70]) * rng.uniform(0.6, 1)
    return cover, paint


def _dashes(rng: np.random.Generator) -> list[tuple[float, float]]:
    """Where along its line a marking is, from the vanishing point (0) to the lower edge (1)."""
    if rng.random() < 0.5:
        return [(0.05, 1.2)]
    length, at = rng.uniform(0.08, 0.3), rng.uniform(0, 0.3)
    dashes = []
    while at < 1.2:
        dashes.append((at, at + length * (at + 0.2)))
        at += 2 * length * (at + 0.2) + 0.03
    return dashes


def _clock(size: tuple[int, int], rng: np.random.Generator) -> Fixture:
    """A line of burned-in text, perhaps outlined."""
    text = "".join(rng.choice(list("0123456789:-/ KMHNWE."), int(rng.integers(4, 16))))
    place = int(rng.integers(-size[1] // 8, size[1])), int(rng.integers(8, size[0]))
    font, scale, thick = int(rng.integers(0, 5)), rng.uniform(0.3, 1.2), int(rng.integers(1, 3))
    letters, outline = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    cv2.putText(letters, text, place, font, scale, 255, thick, cv2.LINE_AA)
    if rng.random() < 0.5:
        cv2.putText(outline, text, place, font, scale, 255, thick + 2, cv2.LINE_AA)
    light = rng.uniform(150, 255, 3) if rng.random() < 0.3 else rng.uniform(200, 255)
    return np.maximum(letters, outline) / 255, letters[..., None] / 255 * light


def _bonnet(size: tuple[int, int], rng: np.random.Generator) -> Fixture:
    rows, across = np.arange(size[0])[:, None], np.linspace(-1, 1, size[1])[None]
    edge = size[0] * (1 - rng.uniform(0.05, 0.3)) + (across - rng.uniform(-0.6, 0.6)) ** 2 * rng.uniform(
        0, 40
    )
    depth = np.clip((rows - edge) / 60, 0, 1)[..., None]
    colours = rng.uniform(10, 180, (2, 3))
    return np.clip((rows - edge) / rng.uniform(1, 4), 0, 1), colours[0] * (1 - depth) + colours[1] * depth


def _logo(size: tuple[int, int], rng: np.random.Generator) -> Fixture:
    drawn = np.zeros(size, np.uint8)
    corner, side = [int(rng.integers(0, length)) for length in size[::-1]], int(rng.integers(4, 22))
    if rng.random() < 0.5:
        cv2.circle(drawn, corner, side, 255, -1, cv2.LINE_AA)
    else:
        cv2.rectangle(drawn, corner, [corner[0] + 2 * side, corner[1] + side], 255, -1)
    cv2.putText(drawn, "SPAIR"[int(rng.integers(4)) :], corner, 0, rng.uniform(0.3, 0.6), 0, 1, cv2.LINE_AA)
    return drawn / 255 * rng.uniform(0.4, 1), rng.uniform(0, 255, 3)


def _frame(size: tuple[int, int], rng: np.random.Generator) -> Fixture:
    """The windscreen's edge, or a pillar."""
    cover = np.zeros(size)
    wide = int(rng.integers(3, max(4, min(size) // 5)))
    edge = (np.s_[:wide], np.s_[-wide:], np.s_[:, :wide], np.s_[:, -wide:])[int(rng.integers(4))]
    cover[edge] = 1
    return cover, rng.uniform(0, 120, 3)


def _wiped(frame: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = frame.shape[:2]
    foot, wide = rng.integers(0, width), rng.integers(8, 40)
    top = foot + rng.integers(-width // 2, width // 2, 2)
    corners = [(foot, height), (foot + wide, height), (top[0] + wide, 0), (top[1], 0)]
    wiped = frame.copy()
    cv2.fillPoly(wiped, [np.array(corners, np.int32)], [int(rng.integers(0, 40))] * 3)
    return wiped


def _recorded(
    degraded: list[Pixels], clean: list[Pixels], rng: np.random.Generator, config: DriveConfig
) -> tuple[list[Pixels], list[Pixels]]:
    """Both clips as a camera keeps them, with the same noise; what is the same in both stays so."""
    if rng.random() < config.noise:
        strength = np.float32(rng.uniform(0.5, 4))
        noise = [strength * rng.standard_normal(frame.shape, np.float32) for frame in clean]
        degraded, clean = (
            [_noisy(frame, grain) for frame, grain in zip(frames, noise, strict=True)]
            for frames in (degraded, clean)
        )
    if rng.random() < config.coded:
        crf = int(rng.integers(18, 34))
        # A frame in mid-clip is not coded as one alone is: it would differ by some 4 levels.
        degraded, clean = coded(degraded, crf), coded(clean, crf)
    return degraded, clean


def _noisy(frame: Pixels, grain: Floats) -> Pixels:
    return np.clip(frame + grain, 0, 255).round().astype(np.uint8)


def coded(frames: Sequence[Pixels], crf: int) -> list[Pixels]:
    """Frames uint8 [H, W, 3] as they come back from H.264 of that quality (sides are made even for it).

    Where PyAV is not installed, which training from a pack can do without, from JPEG of about that.
    """
    try:
        import av
    except ImportError:
        return [_as_jpeg(frame, JPEG_QUALITY - 3 * (crf - 18)) for frame in frames]
    height, width = frames[0].shape[:2]
    even = height + height % 2, width + width % 2
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=30, options={"crf": str(crf), "preset": "ultrafast"})
        video.height, video.width, video.pix_fmt = *even, "yuv420p"
        video.codec_context.thread_count = 1
        for frame in frames:
            padded = np.pad(frame, ((0, even[0] - height), (0, even[1] - width), (0, 0)), mode="edge")
            container.mux(video.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))
        container.mux(video.encode())
    stream.seek(0)
    with av.open(stream, "r") as container:
        again = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [np.ascontiguousarray(frame[:height, :width]) for frame in again]


def _as_jpeg(frame: Pixels, quality: int) -> Pixels:
    file = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), dtype=np.uint8)


def _one_sided(window: Window, rng: np.random.Generator) -> Window:
    """The window at an end of its clip: without what came before the frame, or without what comes after."""
    here, side = window.own[0], rng.choice([-1, 1])

    def kept(places: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(k for k in places if (k - here) * side >= 0)

    return replace(window, neighbours=(kept(window.neighbours[0]),), beats=(kept(window.beats[0]),))
