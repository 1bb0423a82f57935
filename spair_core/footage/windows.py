"""Runs of frames with the frames around them that their references need, from a stream of any length.

Which frames those are is decided frame by frame from the clip's own times and contents, never from where a
run begins or ends, so that a clip gives the same result whole and in runs. Memory is bounded by the reach.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]
"""uint8, or uint16 of deep footage."""

SAME_LEVELS = 8
"""A frame in which no value differs by more from the one before is that frame again: it knows nothing new."""
CUT_CORRELATION = 0.4
CUT_DROP = 0.3
CUT_MEMORY = 8
"""A scene changes where two frames' darkest blocks correlate by less than the first, and by so much less than
lately (heavy rain at night correlates badly all the time), or, at the start of a clip, than the next pair."""

SLACK = 1e-4
"""Seconds by which times may be rounded."""

ROUNDS = 2
"""So often restored frames agree with those before and after them, and so with those beside these."""


@dataclass(frozen=True)
class Reach:
    """How far around a frame its references look. Everything is in seconds, whatever the frame rate."""

    near: float = 0.2
    """Neighbours that are aligned are no further away."""
    apart: float = 0.03
    """Nor are two of them closer to one another: a streak must have fallen out of sight."""
    each_side: int = 2
    """So many of them before a frame and after it."""
    far: float = 0.5
    """The fixed reference looks so far to both sides,"""
    beat: float = 1 / 6
    """and sees a frame in each such interval of the clip."""
    most_frames: int = 64
    """Of very high frame rates, no more frames than these are held on either side."""

    def __post_init__(self) -> None:
        if not 0 < self.apart <= self.near <= self.far or self.beat <= 0 or self.most_frames < 1:
            raise ValueError("a reach needs 0 < apart <= near <= far, a beat above 0 and at least one frame")


class Beside(NamedTuple):
    """A frame beside a run with which some of its frames, or others beside it, are to agree, and
    what it looks at itself: places."""

    place: int
    neighbours: tuple[int, ...]
    beats: tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """A run of frames, and those around it that they need.

    `pixels` uint8 (or uint16) [k, H, W, 3] in order of time, of which `own` are the run's. For each of the
    run's frames, `neighbours` are the places in `pixels` of what is to be aligned with it (in order of time),
    and `beats` of what its fixed reference sees. `beside` are those frames that the run's are to agree with
    once they are restored (`closest`, in `ROUNDS`), and that are not the run's.
    """

    pixels: Pixels
    own: range
    neighbours: tuple[tuple[int, ...], ...]
    beats: tuple[tuple[int, ...], ...]
    beside: tuple[Beside, ...] = ()

    @staticmethod
    def alone(pixels: Pixels) -> Window:
        """Frames or pictures [k, H, W, 3] that know nothing of one another."""
        return Window(pixels, range(len(pixels)), ((),) * len(pixels), ((),) * len(pixels))

    @property
    def shown(self) -> Window:
        """The same in 8 bits."""
        return self if self.pixels.dtype == np.uint8 else replace(self, pixels=_eight_bit(self.pixels))

    def alongside(self, beside: Beside) -> Window:
        """The window of a frame beside the run."""
        place, neighbours, beats = beside
        return Window(self.pixels, range(place, place + 1), (neighbours,), (beats,))

    def at(self, number: int) -> Window:
        """The window of only the `number`th of the run's frames, and of none beside it."""
        around, beats = self.neighbours[number], self.beats[number]
        needed = sorted({self.own[number], *around, *beats})
        place = {old: new for new, old in enumerate(needed)}
        here = place[self.own[number]]
        return Window(
            self.pixels[needed],
            range(here, here + 1),
            (tuple(place[k] for k in around),),
            (tuple(place[k] for k in beats),),
        )


def closest(place: int, neighbours: Sequence[int]) -> tuple[int, ...]:
    """Of a frame's neighbours the one before it and the one after it; at an end two of one side."""
    before = [k for k in neighbours if k < place]
    after = [k for k in neighbours if k > place]
    if before and after:
        return before[-1], after[0]
    return (*before[-2:], *after[:2])


@dataclass
class _Frame:
    """A frame of the stream: `scene` and `look` count changes of scene and of content, `beat` says whether
    fixed references see it."""

    number: int
    pixels: Pixels
    seconds: float
    scene: int
    look: int
    beat: bool


def windows(frames: Iterable[tuple[Pixels, float]], run: int, reach: Reach | None) -> Iterator[Window]:
    """Frames [H, W, 3], uint8 or uint16, of one size with their times in seconds -> runs of `run` frames.

    Without a `reach`, runs carry nothing beside their own frames.
    """
    if reach is None:
        yield from _bare(frames, run)
        return
    held: list[_Frame] = []
    first = 0  # the first frame that is in no window yet
    for frame in _told(frames, reach):
        held.append(frame)
        while _settled(held, first + run - 1, reach):
            yield _window(held, range(first, first + run), reach)
            first += run
            held = _still_needed(held, first, reach)
    while held and first <= held[-1].number:
        stop = min(first + run, held[-1].number + 1)
        yield _window(held, range(first, stop), reach)
        first = stop


def _bare(frames: Iterable[tuple[Pixels, float]], run: int) -> Iterator[Window]:
    gathered: list[Pixels] = []
    for pixels, _ in frames:
        gathered.append(pixels)
        if len(gathered) == run:
            yield Window.alone(np.stack(gathered))
            gathered = []
    if gathered:
        yield Window.alone(np.stack(gathered))


def _told(frames: Iterable[tuple[Pixels, float]], reach: Reach) -> Iterator[_Frame]:
    """The frames with all that is known of each beside the one before it."""
    stream = _compared(frames)
    start = list(islice(stream, 3))
    # Before the first pair of frames there is no lately: the pair after it stands for it.
    lately = deque((other.alike for other in start[2:]), maxlen=CUT_MEMORY)
    stream = chain(start, stream)
    del start  # whose frames would be held to the end
    before: _Frame | None = None
    for number, (pixels, seconds, alike, same) in enumerate(stream):
        if before is None:
            frame = _Frame(number, pixels, seconds, 0, 0, True)
        else:
            cut = bool(lately) and alike < min(CUT_CORRELATION, max(lately) - CUT_DROP)
            lately.append(alike)
            ticked = seconds // reach.beat != before.seconds // reach.beat
            frame = _Frame(
                number, pixels, seconds, before.scene + cut, before.look + (not same), ticked or cut
            )
        yield frame
        before = frame


class _Compared(NamedTuple):
    """A frame, how far it correlates with the one before it, and whether it is the same; the first is not."""

    pixels: Pixels
    seconds: float
    alike: float
    same: bool


def _compared(frames: Iterable[tuple[Pixels, float]]) -> Iterator[_Compared]:
    blocks: NDArray[np.float32] | None = None
    last: Pixels | None = None
    for pixels, seconds in frames:
        shown = pixels if pixels.dtype == np.uint8 else _eight_bit(pixels)
        here = _darkest_blocks(shown)
        alike, same = 1.0, False
        if blocks is not None and last is not None:
            alike = _correlation(blocks, here)
            # Blocks of frames that are the same cannot differ by more, and tell most others apart.
            same = float(np.abs(here - blocks).max()) <= SAME_LEVELS + 1
            same = same and int(cv2.absdiff(shown, last).max()) <= SAME_LEVELS
        yield _Compared(pixels, seconds, alike, same)
        blocks, last = here, shown


def _eight_bit(pixels: Pixels) -> NDArray[np.uint8]:
    """uint16 in 8 bits, rounded."""
    return np.asarray(((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))


def _darkest_blocks(pixels: Pixels) -> NDArray[np.float32]:
    """[18, 32]: the darkest light of each block, which rain, adding light in narrow streaks, leaves alone."""
    small = cv2.resize(pixels, (256, 144), interpolation=cv2.INTER_AREA).min(axis=2)
    return np.asarray(small.reshape(18, 8, 32, 8).min(axis=(1, 3)).astype(np.float32))


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Of two pictures whatever their exposure; 1 where either is flat and they cannot be told apart."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > a.size else 1.0


def _settled(held: Sequence[_Frame], number: int, reach: Reach) -> bool:
    """Whether all has come in that the frame of this number, or one that it is to agree with, may look at."""
    frames = {frame.number: frame for frame in held}
    if number not in frames:
        return False
    frame, newest = frames[number], held[-1]
    last = frames[max(_agreeing(held, [number], reach))]
    return (
        newest.seconds > last.seconds + reach.far + SLACK
        or newest.scene > frame.scene
        or newest.number >= last.number + reach.most_frames
    )


def _window(held: Sequence[_Frame], numbers: range, reach: Reach) -> Window:
    """The window of the frames with these numbers."""
    frames = {frame.number: frame for frame in held}
    looks = {number: _looks(held, frames[number], reach) for number in numbers}
    agreeing = _agreeing(held, numbers, reach)
    beside = {number: _looks(held, frames[number], reach) for number in sorted(agreeing - {*numbers})}
    seen = (k for pair in (*looks.values(), *beside.values()) for part in pair for k in part)
    needed = sorted({*numbers, *beside, *seen})
    place = {number: index for index, number in enumerate(needed)}

    def placed(numbers: Sequence[int]) -> tuple[int, ...]:
        return tuple(place[k] for k in numbers)

    start = place[numbers.start]
    return Window(
        np.stack([frames[number].pixels for number in needed]),
        range(start, start + len(numbers)),
        tuple(placed(neighbours) for neighbours, _ in looks.values()),
        tuple(placed(beats) for _, beats in looks.values()),
        tuple(Beside(place[k], *map(placed, both)) for k, both in beside.items()),
    )


def _agreeing(held: Sequence[_Frame], numbers: Sequence[int], reach: Reach) -> set[int]:
    """Numbers of some frames and of all whose restorations decide about theirs."""
    frames = {frame.number: frame for frame in held}
    found = {*numbers}
    for _ in range(ROUNDS):
        found |= {k for number in found for k in closest(number, _neighbours(held, frames[number], reach))}
    return found


def _looks(held: Sequence[_Frame], frame: _Frame, reach: Reach) -> tuple[list[int], list[int]]:
    return _neighbours(held, frame, reach), _beats(held, frame, reach)


def _neighbours(held: Sequence[_Frame], frame: _Frame, reach: Reach) -> list[int]:
    """Numbers of the frames that are to be aligned with a frame: of its scene, near, apart, new looks."""
    scene = _within(held, frame, reach.near, reach)
    before = _walked(frame, [other for other in reversed(scene) if other.number < frame.number], reach)
    after = _walked(frame, [other for other in scene if other.number > frame.number], reach)
    return [*reversed(before), *after]


def _walked(frame: _Frame, outward: Sequence[_Frame], reach: Reach) -> list[int]:
    taken = [frame]
    for other in outward:
        last = taken[-1]
        if other.look != last.look and abs(other.seconds - last.seconds) >= reach.apart - SLACK:
            taken.append(other)
        if len(taken) > reach.each_side:
            break
    return [other.number for other in taken[1:]]


def _beats(held: Sequence[_Frame], frame: _Frame, reach: Reach) -> list[int]:
    """Numbers of the frames that a frame's fixed reference sees."""
    seen = {other.look: other.number for other in _within(held, frame, reach.far, reach) if other.beat}
    return sorted(seen.values())


def _within(held: Sequence[_Frame], frame: _Frame, seconds: float, reach: Reach) -> list[_Frame]:
    return [
        other
        for other in held
        if other.scene == frame.scene
        and abs(other.seconds - frame.seconds) <= seconds + SLACK
        and abs(other.number - frame.number) <= reach.most_frames
    ]


def _still_needed(held: Sequence[_Frame], first: int, reach: Reach) -> list[_Frame]:
    """What the frames from number `first` on, and those that they are to agree with, may still look at."""
    rest = [frame for frame in held if frame.number >= first]
    number = min(_agreeing(held, [first], reach))
    oldest = next(frame for frame in held if frame.number == number)
    return [
        frame
        for frame in _within(held, oldest, reach.far + SLACK, reach)
        if frame.number < first and (frame.beat or frame.seconds >= oldest.seconds - reach.near - 2 * SLACK)
    ] + rest
