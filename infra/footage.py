"""A night of dashcam-like footage for the demo: photographs that packages ship, in seeded rain.

The clean originals are kept, so that what a restoration gains can be measured.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

from spair_core.degradations.rain import Family, RainConfig, add_rain
from spair_core.images import Picture, encode

Pixels = NDArray[np.uint8]
WIDTH, HEIGHT = 424, 240
FRAMES_PER_SECOND = 24
SAMPLES_PER_SECOND = 48000
STEADY = Family(
    layers=(2, 2),
    coverage=(0.12, 0.18),
    angle=(8, 14),
    length=(16, 40),
    width=(1.0, 1.8),
    brightness=(0.2, 0.35),
)
"""Rain that looks alike from frame to frame, as in footage."""


@dataclass(frozen=True)
class Item:
    """A file of the night: its name, its bytes, and its clean frames uint8 [k, H, W, 3] (k = 0: broken)."""

    key: str
    data: bytes
    clean: Pixels


def night(seed: int = 0) -> Iterator[Item]:
    """Two clips, one with sound, five stills (one of them in dry weather) and one broken file."""
    temple, launch = load_sample_image("china.jpg"), skimage.data.rocket()
    yield _clip("front/drive.mp4", pan(temple, 36), _generator(seed, 0), sound=True)
    yield _clip("rear/launch.mp4", zoom(launch, 30), _generator(seed, 1), sound=False)
    yield _still("stills/temple.jpg", temple, _generator(seed, 2))
    yield _still("stills/launch.png", launch, _generator(seed, 3))
    yield _still("stills/flower.jpg", load_sample_image("flower.jpg"), _generator(seed, 4))
    yield _still("stills/coffee.webp", skimage.data.coffee(), _generator(seed, 5))
    yield Item("stills/dry.png", _encoded("stills/dry.png", launch), launch[None])
    whole = _encoded("stills/broken.jpg", temple)
    yield Item("stills/broken.jpg", whole[: len(whole) // 3], np.empty((0, HEIGHT, WIDTH, 3), np.uint8))


def _generator(seed: int, item: int) -> np.random.Generator:
    return np.random.default_rng((seed, item))  # an item's rain does not depend on the items before it


def pan(photo: Pixels, count: int) -> Pixels:
    """A camera that turns: `count` frames [count, HEIGHT, WIDTH, 3] from left to right over a photograph."""
    view = 0.8 * photo.shape[1]
    starts = np.linspace(0, photo.shape[1] - view, count)
    return np.stack([_view(photo, left + view / 2, view) for left in starts])


def zoom(photo: Pixels, count: int) -> Pixels:
    """A camera that drives on: `count` frames [count, HEIGHT, WIDTH, 3] ever nearer to the middle."""
    views = np.geomspace(0.95, 0.7, count) * photo.shape[1]
    return np.stack([_view(photo, photo.shape[1] / 2, view) for view in views])


def _view(photo: Pixels, centre: float, width: float) -> Pixels:
    height = width * HEIGHT / WIDTH
    top = (photo.shape[0] - height) / 2
    box = (centre - width / 2, top, centre + width / 2, top + height)
    return np.asarray(Image.fromarray(photo).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box))


def _still(key: str, clean: Pixels, rng: np.random.Generator) -> Item:
    rainy, _ = add_rain(clean, rng, RainConfig(dry=0))
    return Item(key, _encoded(key, rainy), clean[None])


def _encoded(key: str, pixels: Pixels) -> bytes:
    return encode(Picture(pixels, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[key.rpartition(".")[2]]))


def _clip(key: str, clean: Pixels, rng: np.random.Generator, *, sound: bool) -> Item:
    config = RainConfig(families=(STEADY,), weights=(1.0,), dry=0, haze=0, screen=0)
    rainy = [add_rain(frame, rng, config)[0] for frame in clean]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        video = container.add_stream(
            "libx264", rate=FRAMES_PER_SECOND, options={"crf": "12", "preset": "veryfast"}
        )
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLES_PER_SECOND, layout="mono") if sound else None
        for frame in rainy:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode())
        if audio is not None:
            container.mux(audio.encode(_hum(len(rainy) / FRAMES_PER_SECOND, rng)))
            container.mux(audio.encode())
    return Item(key, file.getvalue(), clean)


def _hum(seconds: float, rng: np.random.Generator) -> av.AudioFrame:
    """An engine and the rain on the roof."""
    time = np.arange(int(seconds * SAMPLES_PER_SECOND)) / SAMPLES_PER_SECOND
    engine = 0.1 * np.sin(2 * np.pi * 70 * time) + 0.05 * np.sin(2 * np.pi * 140 * time)
    samples = (engine + 0.02 * rng.standard_normal(time.size)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLES_PER_SECOND, 0, Fraction(1, SAMPLES_PER_SECOND)
    return frame
