"""Every frame that players would show of a file, whatever has become of it, and what is wrong with it."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition

from pipelines.media.video.clip import ClipError, File, to_read

PATIENCE = 16
"""A file that cannot be read on so many times in a row has ended."""
CLOCKED = ("matroska", "mov", "avi", "flv")
"""Demuxers whose files say how long they are; others guess."""
UNFINISHED = (
    "its index (moov) is missing, which a camera writes when it ends a recording; tools such as untrunc make "
    "one after a whole clip of the same camera"
)
BOX, LONG = 8, 1
"""Bytes of the head of an MP4's box, and a size that says that a longer one follows."""
MOST_BOXES, MOST_BYTES = 64, 1 << 48
PLACED = ("avi", "asf")
"""Demuxers whose files say when packets stand, not when frames are shown."""
READ_BYTES = 1 << 18
"""FFmpeg is given at once, of a file that it does not read by itself."""
USUAL = Fraction(1, 25)
"""Seconds of a frame whose own length is beyond reason."""
SLACK = 0.25
"""Seconds by which a clip may end before it says."""
BACKS, BACK = dict.fromkeys(("mpegts", "mpeg"), Fraction(1, 10)), Fraction(1)
"""Seconds by which a clock that goes back was set anew, what is less is a slip: in streams, which may be
several recordings, and in other files, whose edit lists go back by some frames."""
APART = Fraction(1)
"""Seconds by which the tracks of a recording may begin one after another."""
LEAPS, LEAP = dict.fromkeys(BACKS, Fraction(60)), Fraction(6 * 3600)
"""And by which it goes forward: in streams, whose damage may be a time's, and in files that have an index,
of which some hold no more."""
SILENT = ("hevc",)
"""Decoders that pass over a damaged packet without an error; each of theirs holds a frame."""
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


@contextmanager
def opened(file: File) -> Iterator[InputContainer]:
    """A clip to read. Raises ClipError where it is none."""
    with ExitStack() as stack:
        source = str(file) if isinstance(file, Path) else stack.enter_context(file.open())
        try:
            container = av.open(source, "r", metadata_errors="replace", buffer_size=READ_BYTES)
        except (FFmpegError, ValueError) as error:
            cut = isinstance(error, InvalidDataError) and _is_unfinished(file)
            why = UNFINISHED if cut else getattr(error, "strerror", None) or error
            raise ClipError(f"not a clip that can be read: {why}") from error
        with container:
            yield container


def _is_unfinished(file: File) -> bool:
    """Whether it is an MP4 or its like without an index, which is written last."""
    found: set[bytes] = set()
    place = 0
    with to_read(file) as data:
        while len(found) < MOST_BOXES and len(head := _at(data, place)) >= BOX:
            size, kind = struct.unpack_from(">I4s", head)
            found.add(kind)
            size = int.from_bytes(head[BOX:]) if size == LONG else size
            if not BOX <= size < MOST_BYTES:
                break  # it goes on to the end, or is none
            place += size
    return b"ftyp" in found and b"moov" not in found


def _at(data: BinaryIO, place: int) -> bytes:
    data.seek(place)
    return data.read(2 * BOX)


def main_track(container: InputContainer) -> Any:
    """The stream of the clip's pictures. Raises ClipError where there is none that can be decoded."""
    tracks = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not tracks:
        raise ClipError("it holds no video")
    best = container.streams.best("video")
    track = best if best in tracks else tracks[0]
    if track.codec_context is None:
        raise ClipError("it is in a video codec that is not known here")
    return track


def packets(container: InputContainer, streams: list[Any], damage: Damage) -> Iterator[av.Packet]:
    """The packets of these streams, past what cannot be read, by one clock.

    What a file says is the same for all who ask for the same streams.
    """
    fruitless = 0
    damage.clock = clock = Clock(container.format.name)
    while fruitless < PATIENCE:
        try:
            for packet in container.demux(streams):
                fruitless = 0
                if packet.size:
                    clock.set(packet)
                    yield packet
            return
        except IndexError:
            # At the end, where PyAV stumbles over tracks that have appeared on the way and were not read.
            damage.late = True
            return
        except (FFmpegError, OSError):
            fruitless += 1
            damage.unread = True


class Clock:
    """That of a file's packets. Where it is set anew on the way (recordings one after another, a camera that
    started again, a damaged time), it goes on for all tracks alike."""

    def __init__(self, demuxer: str) -> None:
        self.settings = 0
        self._back, self._leap = BACKS.get(demuxer, BACK), LEAPS.get(demuxer, LEAP)
        self._shift = Fraction(0)
        self._shifts: dict[int, Fraction] = {}
        self._last: dict[int, Fraction] = {}
        self._end = Fraction(0)

    def set(self, packet: av.Packet) -> None:
        """Give a packet, the next that was read, its time."""
        if packet.time_base is None:
            return
        base = Fraction(packet.time_base)
        if (packet.duration or 0) * base > self._leap:
            packet.duration = round(USUAL / base)
        if packet.dts is not None and packet.stream.type in ("video", "audio"):
            self._go_on(packet, packet.dts * base, (packet.duration or 0) * base)
        if shift := self._shift_of(packet):
            packet.dts = packet.dts if packet.dts is None else packet.dts + round(shift / base)
            packet.pts = packet.pts if packet.pts is None else packet.pts + round(shift / base)

    def _go_on(self, packet: av.Packet, told: Fraction, length: Fraction) -> None:
        """Take in the time that a packet tells, and whether its clock was set anew before."""
        track, shift = packet.stream.index, self._shift_of(packet)
        if packet.is_discard and self._is_near(told + shift):
            return  # hidden by an edit list, it may stand before what was shown
        if track in self._last and not self._follows(track, told + shift, self._back):
            if shift == self._shift or not self._follows(track, told + self._shift, APART):
                self._shift = self._end - told
                self.settings += 1
            shift = self._shift
        self._shifts[track], self._last[track] = shift, told + shift
        self._end = max(self._end, told + shift + length)

    def _shift_of(self, packet: av.Packet) -> Fraction:
        return self._shifts.get(packet.stream.index, self._shift)

    def _follows(self, track: int, time: Fraction, back: Fraction) -> bool:
        return self._last[track] - back <= time and self._is_near(time)

    def _is_near(self, time: Fraction) -> bool:
        return time <= self._end + self._leap


class Damage:
    """Gathers what is wrong with a clip while it is read."""

    def __init__(self) -> None:
        self.clock: Clock | None = None
        self.unread = self.late = False
        self.seen, self.shown, self.end = 0, 0, 0.0
        self.undecoded = self.leading = 0
        self.bad: list[int] = []
        self.resized: tuple[int, str] | None = None
        self.repacked: tuple[int, str] | None = None
        self._tainted = False

    def packet(self, packet: av.Packet, own: bool) -> None:
        """One was read; of the video where it is its `own`."""
        if packet.pts is not None and packet.time_base is not None:
            self.end = max(self.end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        self.seen += own and not packet.is_discard

    def frame(self, frame: av.VideoFrame) -> None:
        """One was decoded. What is built on a damaged one is damaged."""
        if self.shown == 0 and frame.key_frame:
            self.leading = max(_number(frame) - 1, 0)
        self._tainted = frame.is_corrupt or (self._tainted and not frame.key_frame)
        if self._tainted:
            self.bad.append(self.shown)
        self.shown += 1

    def notes(self, container: InputContainer, track: Any) -> tuple[str, ...]:
        """A sentence for each thing that is wrong, once all has been read."""
        found = list(self._cut(container, track))
        if self.leading:
            which = "frame" if self.leading == 1 else f"{self.leading:,} frames"
            found.append(f"its first {which} cannot be shown, damaged or built on what is not there")
        if self.bad:
            found.append(f"{_spans(self.bad)} damaged, or built on what is")
        if self.clock and self.clock.settings:
            times = "once" if self.clock.settings == 1 else f"{self.clock.settings} times"
            found.append(
                f"its clock is set anew {times}, as in recordings one after another: here it goes on"
            )
        if self.late:
            found.append("a track that begins on the way is not kept")
        if self.undecoded:
            which = "packets is" if self.undecoded == 1 else "packets are"
            found.append(f"{self.undecoded} of its {which} too damaged to be shown")
        if track.codec_context.name in SILENT and (lost := self._not_shown()):
            found.append(f"{lost:,} of its frames cannot be shown, damaged or built on what is not there")
        if self.resized:
            found.append(
                "from frame {} on it has another size, {}, and is scaled to the first".format(*self.resized)
            )
        if self.repacked:
            found.append(
                "from frame {} on it has other samples ({}), made like the first".format(*self.repacked)
            )
        return tuple(found)

    def _not_shown(self) -> int:
        """Packets of a codec that has a frame in each, and no frame."""
        return max(self.seen - self.shown - self.leading - self.undecoded, 0)

    def _cut(self, container: InputContainer, track: Any) -> Iterator[str]:
        length = (container.duration or 0) / av.time_base
        promised = _promised(track) if "mp4" in container.format.name else 0
        clocked = any(name in container.format.name for name in CLOCKED)
        if promised and self.seen < promised:
            end = min(self.end, length * self.seen / promised)
            yield f"cut short: {end:.1f} of {length:.1f} seconds are there ({self.shown} frames)"
        elif clocked and not promised and self.end < length - SLACK - 0.001 * length:
            yield f"cut short: {self.end:.1f} of {length:.1f} seconds are there ({self.shown} frames)"
        elif self.unread:
            yield f"parts of the file cannot be read ({self.shown} frames are there)"


def _promised(track: Any) -> int:
    """Frames that the index has, without those that an edit list hides."""
    if not track.frames:
        return 0
    return sum(not entry.is_discard and entry.size > 0 for entry in track.index_entries)


def _spans(numbers: list[int]) -> str:
    """[1, 4, 5, 6] -> frames 1 and 4 to 6 are."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    said = [str(a) if a == b else f"{a} to {b}" for a, b in spans[:8]]
    rest = " and more" if len(spans) > 8 else ""
    return f"frame {said[0]} is" if said == [str(numbers[0])] else f"frames {', '.join(said)}{rest} are"


def decoder_of(track: Any) -> Any:
    """What decodes a track, with its alpha where it has that."""
    context = track.codec_context
    other = ALPHA_DECODERS.get(context.codec.canonical_name)
    if other and has_alpha(track):
        alpha = av.CodecContext.create(other, "r")
        alpha.extradata = context.extradata
        return alpha
    # With a frame a thread, a broken packet at the end takes those before it along, and nothing is told; with
    # slices, H.264's decoder does without its look at what is damaged within a packet.
    context.thread_type = "NONE" if context.name == "h264" else "SLICE"
    return context


def has_alpha(track: Any) -> bool:
    """Whether a VP8 or VP9 track has alpha beside what its own decoder sees."""
    return {key.lower(): value for key, value in track.metadata.items()}.get("alpha_mode") == "1"


def decoded(container: InputContainer, track: Any, damage: Damage) -> Iterator[av.VideoFrame]:
    """Every frame that can be decoded, with its time by the track's clock."""
    decoder = decoder_of(track)
    decoder.copy_opaque = True
    places = _Places(container.format.name in PLACED)
    for packet in _of_track(container, track, damage):
        if packet is not None:
            places.add(packet)
        for frame in _frames(decoder, packet, damage):
            frame.time_base = track.time_base  # which those that come at the end lack
            yield places.given(frame)


def _of_track(container: InputContainer, track: Any, damage: Damage) -> Iterator[av.Packet | None]:
    """A track's packets, each marked with its number, and None at their end."""
    for packet in packets(container, list(container.streams), damage):
        own = packet.stream.index == track.index
        damage.packet(packet, own)
        if own:
            packet.opaque = damage.seen
            yield packet
    yield None


class _Places:
    """Gives frames the places of packets in a file that has no other times: what FFmpeg makes of those for
    codecs that may reorder frames is late by a few."""

    def __init__(self, placed: bool) -> None:
        self.placed = placed
        self.free: deque[tuple[int, int]] = deque()

    def add(self, packet: av.Packet) -> None:
        """One more place."""
        if self.placed and packet.dts is not None:
            self.free.append((_number(packet), packet.dts))

    def given(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The next frame, in the first place that is free."""
        if frame.key_frame:
            self._pass(frame)
        if self.free:
            _, frame.pts = self.free.popleft()
        return frame

    def _pass(self, key: av.VideoFrame) -> None:
        """Leave the places of packets that showed nothing: after a key frame none is shown whose packet came
        before that one's."""
        while self.free and self.free[0][0] < _number(key):
            self.free.popleft()


def _number(of: av.Packet | av.VideoFrame) -> int:
    """The number that a packet was marked with, or a frame's packet; 0 where its decoder does not say."""
    return of.opaque if isinstance(of.opaque, int) else 0


def _frames(decoder: Any, packet: av.Packet | None, damage: Damage) -> Iterator[av.VideoFrame]:
    while True:
        try:
            frames = decoder.decode(packet)
        except FFmpegError:
            damage.undecoded += 1
            if packet is None and damage.undecoded < 1000:
                continue  # what is left may be whole
            return
        for frame in frames:
            damage.frame(frame)
            yield frame
        return
